"""What the robustness study is said to cost, before anything of it runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from interpflow.config.load import parse_config
from interpflow.paths import PROJECT_DIR, RESOURCES_DIR
from interpflow.studies.robustness.answers import prompt_states
from interpflow.studies.robustness.patches import mediation, pairs
from interpflow.workflow.costs import Cost
from interpflow.workflow.estimate import estimate_costs, print_estimate
from interpflow.workflow.robustness_costs import NUMBER_QUERIES, PART_PLACES, RESIDUAL_PLACES

pytestmark = pytest.mark.skipif(
    not (RESOURCES_DIR / "reference/word_problems").is_dir(),
    reason="the reference models are not in this checkout",
)
LIGHT = """
import sys
from interpflow.config.load import parse_config
from interpflow.workflow.parse import parse_settings
from interpflow.workflow.estimate import estimate_costs
raw = {"models": {"m": {"reference": "word_problems"}}, "counting": None, "robustness": {}}
config, _ = parse_settings(raw)
estimate_costs(config)
print([name for name in ("torch", "transformers", "pandas") if name in sys.modules])
"""


def costs(**study: Any) -> dict[str, Cost]:
    raw = {"models": {"m": {"reference": "word_problems"}}, "counting": None}
    found = estimate_costs(parse_config({**raw, "robustness": study}))
    assert len({cost.rule for cost in found}) == len(found)
    return {cost.rule: cost for cost in found}


def test_texts_are_those_of_the_design() -> None:
    operators = ["keyboard", "case", "polite"]
    found = costs(data={"n_items": 40}, perturbations={"operators": operators})
    # Clean, null, control in three doses, keyboard in three, case and polite.
    assert found["robustness_generation"].examples == 40 * (1 + 1 + 3 + 3 + 1 + 1)
    rewritten = costs(
        data={"n_items": 40},
        perturbations={
            "operators": operators, "rewrites": {"styles": ["polite", "terse"], "per_item": 2}
        },
    )  # fmt: skip
    assert rewritten["robustness_generation"].examples == 40 * (10 + 4)


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        ("robustness_inference", {"data": {"n_items": 400}}),
        ("robustness_inference", {"perturbations": {"variants": 2}}),
        ("robustness_inference", {"inference": {"samples": 2}}),
        ("robustness_rewards", {"inference": {"samples": 2}}),
        ("robustness_rewards", {"scoring": {"reward_models": ["reference", "a/b@c"]}}),
        ("robustness_semantics", {"scoring": {"nli": "a/b@c"}}),
        ("robustness_mediation", {"mediation": {"n_pairs": 240}}),
    ],
)
def test_a_larger_study_costs_more(rule: str, settings: dict[str, Any]) -> None:
    assert costs(**settings)[rule].forward_tokens > 1.2 * costs()[rule].forward_tokens


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"positions": "answer"}, {"positions": "roles"}),
        ({"positions": "roles"}, {"positions": "all"}),
        ({"components": ["resid_post"]}, {"components": ["resid_post", "mlp_act"]}),
        ({"layers": [0, 1]}, {"layers": None}),
        ({"dtype": "float16"}, {"dtype": "float32"}),
        ({"max_items": 30}, {"max_items": 60}),
    ],
)
def test_the_store_grows_with_what_is_kept(less: dict[str, Any], more: dict[str, Any]) -> None:
    small, large = (
        costs(inference={"activations": kept})["robustness_inference"].disk_mb
        for kept in (less, more)
    )
    assert large > 1.3 * small


def test_what_is_switched_off_costs_nothing() -> None:
    off = costs(semantics={"embedding": None}, scoring={"embedding": None})
    assert off["robustness_validation"].forward_tokens == 0
    assert "robustness_semantics" not in off
    raw = {"models": {"m": {"local": "x"}}, "counting": None, "robustness": None}
    assert estimate_costs(parse_config(raw)) == []


def test_places_are_those_of_the_stages() -> None:
    assert len(pairs.SLOTS) == RESIDUAL_PLACES
    assert len(mediation.PART_SLOTS) == PART_PLACES
    assert prompt_states.MAX_NUMBER_QUERIES == NUMBER_QUERIES


def test_prompts_without_answers_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    raw = {"models": {"m": {"reference": "word_problems"}}, "counting": None}
    print_estimate(parse_config({**raw, "robustness": {}}))
    assert "note:" not in capsys.readouterr().out
    print_estimate(parse_config({**raw, "robustness": {"data": {"source": "instructions"}}}))
    assert "note: prompts without a gold answer" in capsys.readouterr().out


def test_checks_and_costs_need_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(PROJECT_DIR / "workflow_scripts"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
