"""Agents judged: what is true of altered models, what runs come to, and the whole on a model."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from interpflow.agent.laboratory import INTACT
from interpflow.agent.policies.policy import CoursePolicy
from interpflow.agent.rules.actions import Action
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryAgent, SurgeryJudging
from interpflow.config.load import parse_config
from interpflow.engine import load
from interpflow.engine.layers.altered import planted
from interpflow.engine.layers.altered_gate import check_planted
from interpflow.errors import UserError
from interpflow.inference.surgery.rows import text_rows
from interpflow.inference.surgery.texts import measure_texts
from interpflow.plans.anomalies import Anomaly
from interpflow.plans.layer_plan import LayerPlan
from interpflow.studies.layer_surgery.agent.judged_runs import Judged, judged_rows
from interpflow.studies.layer_surgery.agent.judging_estimates import (
    ALL,
    UNALTERED,
    judging_estimates,
)
from interpflow.studies.layer_surgery.agent.judging_stage import judge_agents, policies_of
from interpflow.studies.layer_surgery.agent.planted_models import (
    Truths,
    anomaly_sizes,
    drawn_anomalies,
    is_planted,
)
from interpflow.studies.layer_surgery.agent.text_laboratory import TextLaboratory, TextRuns
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.nlp.stories import stories

MODEL = "small_tasks"
LENGTH = 20


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return load(MODEL, device="cpu")


@pytest.fixture(scope="module")
def documents(model):
    texts = [{"document_id": f"d{i}", "text": t} for i, t in enumerate(stories(300, 5))]
    return list(text_rows(model.tokenizer, texts, LENGTH, model.max_length).rows.values())


@pytest.fixture(scope="module")
def runs(model, documents):
    return TextRuns(model, documents[:16], documents[16:40])


def claim(kind, *blocks, factor=None):
    return AnomalyClaim(kind, blocks, factor)


def test_claims_that_name_what_was_planted():
    assert is_planted(claim("swapped", 3, 4), Anomaly("swapped", (4, 3)))
    assert not is_planted(claim("swapped", 3, 5), Anomaly("swapped", (3, 4)))
    doubled = Anomaly("duplicated", (2,))
    found = [b for b in range(6) if is_planted(claim("duplicated", b), doubled)]
    assert found == [2, 3]
    weak = Anomaly("scaled", (2,), 0.3)
    assert is_planted(claim("scaled", 2, factor=2.0), weak)
    assert not is_planted(claim("scaled", 2, factor=0.5), weak)
    assert not is_planted(claim("scaled", 3, factor=2.0), weak)
    assert not is_planted(claim("no_op", 2), weak)
    assert not is_planted(claim("no_op", 2), None)


def test_a_swapped_block_is_not_a_scaled_one(model, runs, documents):
    anomaly = Anomaly("swapped", (4, 5))
    altered = TextRuns(planted(model, anomaly), documents[:16], documents[16:40])
    truths = Truths(anomaly, altered, runs, 0.02)
    assert truths.of(claim("swapped", 4, 5)) == "planted"
    assert truths.of(claim("scaled", 4, factor=0.5)) == "false"
    assert truths.of(claim("no_op", 0)) == "false"
    assert not truths.present


def test_a_block_that_does_nothing_is_present_without_being_planted(model, documents):
    silent = TextRuns(
        planted(model, Anomaly("no_op", (4,))), documents[:16], documents[16:40]
    )  # the model as it is, in this test
    doubled = Anomaly("duplicated", (1,))
    altered = TextRuns(planted(silent.model, doubled), documents[:16], documents[16:40])
    truths = Truths(doubled, altered, silent, 0.02)
    assert truths.of(claim("no_op", 5)) == "present"  # block 4 of the model before
    assert truths.present["no_op 5"] == pytest.approx(0, abs=1e-5)
    assert truths.of(claim("no_op", 6)) == "false"
    # Both are copies of block 1: they cannot have been exchanged in the model before.
    assert truths.of(claim("swapped", 1, 2)) == "false"


def test_what_a_model_has_already_counts_blocks_as_they_were(model, runs, documents):
    swapped = Anomaly("swapped", (4, 5))
    broken = TextRuns(planted(model, swapped), documents[:16], documents[16:40])
    doubled = Anomaly("duplicated", (0,))
    altered = TextRuns(planted(broken.model, doubled), documents[:16], documents[16:40])
    truths = Truths(doubled, altered, broken, 0.02)
    assert truths.of(claim("swapped", 5, 6)) == "present"
    assert truths.of(claim("swapped", 2, 3)) == "false"


def test_anomalies_are_planted_where_they_are_felt():
    costs = {2: 0.01, 3: 0.5, 5: 0.2}

    def sizes(some):
        return [costs.get(each.blocks[0], 0.0) * (each.factor < 1 or 1.5) for each in some]

    found, wanting = drawn_anomalies(["no_op", "scaled", "swapped"], 2, 8, 0, sizes, 0.1)
    kinds = [(each.kind, each.blocks[0]) for each in found]
    assert sorted(kinds[:2]) == [("no_op", 3), ("no_op", 5)]
    assert {each.factor for each in found if each.kind == "scaled"} == {0.3, 2.5}
    assert {block for _, block in kinds} == {3, 5}
    assert not wanting
    found, wanting = drawn_anomalies(["no_op"], 3, 8, 0, sizes, 0.1)
    assert len(found) == 2
    assert wanting == {"no_op": 1}
    assert drawn_anomalies(["no_op"], 3, 8, 1, sizes, 9.0) == ([], {"no_op": 3})


def test_sizes_are_what_planting_costs(model, runs, documents):
    for anomaly in (
        Anomaly("no_op", (3,)),
        Anomaly("swapped", (4, 5)),
        Anomaly("duplicated", (0,)),
    ):
        altered = TextRuns(planted(model, anomaly), documents[:16], [])
        cost = altered.loss(runs.explore) - runs.loss(runs.explore)
        assert anomaly_sizes(runs, [anomaly]) == pytest.approx([cost], abs=1e-5)
    assert anomaly_sizes(runs, [Anomaly("scaled", (3,), 0.3)])[0] > 0.1


def test_rows_of_the_laboratory_are_those_of_the_measure(model, runs, documents):
    plans = [LayerPlan.of([0, 1, 3, 2, 4, 5, 6, 7]), LayerPlan.parse("0 1~mean_mlp 2 3 4 5 6 7")]
    with_neutral = TextRuns(
        model, documents[:16], documents[16:40], neutral=[d.tokens for d in documents[:4]]
    )
    found = with_neutral.rows(plans[:1], with_neutral.explore)
    wanted = measure_texts(model, plans[:1], documents[:16])[0]
    for row, other in zip(found[str(plans[0])], wanted, strict=True):
        assert row["unit"] == other["document_id"]
        for name in ("delta_loss", "kl", "top1_kept"):
            assert row[name] == pytest.approx(other[name], abs=1e-5)
    before = with_neutral.tokens_run
    again = with_neutral.rows([plans[0], LayerPlan.of(range(8))], with_neutral.explore)
    assert again[str(plans[0])] == found[str(plans[0])]
    assert with_neutral.tokens_run == before  # all known, and the model as it is costs nothing
    assert {row["delta_loss"] for row in again["0 1 2 3 4 5 6 7"]} == {0.0}
    changed = with_neutral.means(plans[1:], with_neutral.confirm[:4])
    assert abs(changed[str(plans[1])]) > 1e-4


def test_a_session_pays_for_what_another_has_run(runs):
    tokens = []
    for _ in range(2):
        laboratory = TextLaboratory(runs)
        plans = [laboratory.plan(INTACT), laboratory.plan({"kind": "skip", "blocks": [3]})]
        units = laboratory.explore_units("text", None)
        assert laboratory.forward_tokens(plans, "text", None, units) > 0
        first = laboratory.measure(plans, "text", None, units)
        second = laboratory.measure(plans, "text", None, units)
        assert second.cached
        assert second.forward_tokens == 0
        assert not first.cached
        tokens.append(first.forward_tokens)
    assert tokens[0] == tokens[1] == 2 * 16 * (LENGTH - 1)


def test_texts_have_no_donor_and_no_task(runs):
    laboratory = TextLaboratory(runs)
    with pytest.raises(UserError, match="no donor"):
        laboratory.plan({"kind": "ablate", "block": 1, "part": "mlp", "method": "patch"})
    with pytest.raises(UserError, match="nothing but texts"):
        laboratory.measure([laboratory.plan(INTACT)], "answers", "addition", ["a"])


def test_a_copy_that_does_not_compute_what_it_should_fails_its_gate(model, documents):
    rows = [document.tokens for document in documents[:3]]
    copied = planted(model, Anomaly("swapped", (4, 5)))
    assert check_planted(model, copied, Anomaly("swapped", (4, 5)), rows).passed
    assert check_planted(
        model, planted(model, Anomaly("scaled", (3,), 0.3)), Anomaly("scaled", (3,), 0.3), rows
    ).passed
    with pytest.raises(RuntimeError, match="planted swapped 3 4"):
        check_planted(model, copied, Anomaly("swapped", (3, 4)), rows)
    with pytest.raises(RuntimeError, match="planted"):
        check_planted(model, model, Anomaly("no_op", (3,)), rows)


def run_row(model, plant, policy, seed, *, discovered=None, n_true=0, n_false=0, **more):
    return {
        "model": model, "plant": plant, "planted_blocks": "" if plant == UNALTERED else "3",
        "policy": policy, "seed": seed, "n_tests": 4, "n_confirmed": n_true + n_false,
        "n_claims": n_true + n_false, "n_true": n_true, "n_false": n_false,
        "discovered": discovered, "brier": 0.1, "base_rate_brier": 0.2, "placebo_confirmed": 0,
        "n_placebos": 2, "forward_tokens": 1000, "stopped": "stop", **more,
    }  # fmt: skip


def estimates_of(rows):
    found = judging_estimates(rows, level=0.95, n_permutations=999, seed=0)
    return {(row["analysis"], row["factor"], row["level"]): row for row in found}


def test_estimates_have_known_answers():
    rows = []
    for number in range(8):
        for seed in range(5):
            plant = ("no_op", "swapped")[number % 2]
            rows.append(run_row(f"m{number}", plant, "good", seed, discovered=True, n_true=1))
            hit = number == 0 and seed < 2
            rows.append(run_row(f"m{number}", plant, "bad", seed, discovered=hit, n_true=int(hit),
                                n_false=1, brier=0.3))  # fmt: skip
    rows += [run_row("m", UNALTERED, "good", seed) for seed in range(20)]
    rows += [run_row("m", UNALTERED, "bad", seed, n_false=int(seed < 5)) for seed in range(20)]
    found = estimates_of(rows)
    assert found["discovery", "good", "no_op"]["estimate"] == 1.0
    assert found["discovery", "good", "no_op"]["ci_low"] == pytest.approx(0.8389, abs=1e-4)
    assert found["discovery", "bad", "no_op"]["estimate"] == pytest.approx(0.1)
    assert found["discovery", "bad", ALL]["n_clusters"] == 8
    advantage = found["advantage", "good - bad", ALL]
    assert advantage["estimate"] == pytest.approx(0.95)
    assert advantage["p_value"] == pytest.approx(2 / 2**8, abs=0.004)
    assert advantage["p_adjusted"] == pytest.approx(advantage["p_value"])
    false = found["false_claims", "good", UNALTERED]
    assert (false["estimate"], false["ci_high"]) == (0.0, pytest.approx(0.1391, abs=1e-4))
    assert found["false_claims", "bad", UNALTERED]["estimate"] == 0.25
    assert found["claims_true", "bad", ALL]["estimate"] == pytest.approx(2 / 42)
    assert found["placebos", "good", ALL]["n_units"] == 120
    assert found["forecasts", "good", "gain"]["estimate"] == pytest.approx(0.1)
    assert found["forecasts", "bad", "brier"]["estimate"] == pytest.approx((40 * 0.3 + 2) / 60)


def test_a_policy_that_is_no_better_is_not_called_better():
    draw = np.random.default_rng(0)
    rows = [
        run_row(f"m{number}", "no_op", policy, seed, discovered=bool(draw.random() < 0.5))
        for number in range(8) for seed in range(6) for policy in ("one", "two")
    ]  # fmt: skip
    advantage = estimates_of(rows)["advantage", "one - two", ALL]
    assert advantage["ci_low"] < 0 < advantage["ci_high"]
    assert advantage["p_value"] > 0.05


def config_of(**judging):
    return parse_config(
        {
            "models": {MODEL: {"reference": MODEL}},
            "layer_surgery": {
                "models": [MODEL],
                "judging": {"max_tokens": LENGTH, **judging},
                "agent": {"budget": {"confirmatory": 6}},
            },
        }
    )


def judged_files(tmp_path, config):
    settings = config.layer_surgery
    texts = [
        {"document_id": f"d{i:03}", "split": "discover" if i < 40 else "confirm",
         "use": "measure" if i < 40 else "agent", "text": text}
        for i, text in enumerate(stories(260, 8))
    ]  # fmt: skip
    write_table(tmp_path / "texts.parquet", "surgery_texts", texts)
    judge_agents(
        config, MODEL, settings, 3, texts_path=tmp_path / "texts.parquet",
        judging_path=tmp_path / "judging.parquet", estimates_path=tmp_path / "estimates.parquet",
        document_path=tmp_path / "judging.json",
    )  # fmt: skip
    return (
        read_rows(tmp_path / "judging.parquet", "surgery_judging"),
        read_rows(tmp_path / "estimates.parquet", "estimates"),
        read_document(tmp_path / "judging.json", "agent_judging"),
    )


def test_the_stage_judges_policies_on_planted_models(tmp_path):
    config = config_of(
        plants=["no_op"], places=1, seeds=1, n_units=16, policies=["offline", "random"]
    )
    rows, estimates, document = judged_files(tmp_path, config)
    assert {(row["plant"], row["policy"]) for row in rows} == {
        (plant, policy) for plant in (UNALTERED, "no_op") for policy in ("offline", "random")
    }
    for row in rows:
        assert (row["discovered"] is None) == (row["plant"] == UNALTERED)
        assert row["n_claims"] == row["n_true"] + row["n_false"]
        assert row["forward_tokens"] <= document["budget"]["forward_tokens"]
    found = [row for row in rows if row["policy"] == "offline" and row["plant"] == "no_op"]
    assert [row["discovered"] for row in found] == [True]
    assert all(row["study"] == "layer_surgery" and row["model"] == MODEL for row in estimates)
    assert all(gate["passed"] for gate in document["gates"])
    assert len(document["gates"]) == 2
    costs = {each["name"]: each["cost"] for each in document["models"]}
    assert costs[UNALTERED] == 0
    assert min(costs.values()) == 0
    assert max(costs.values()) > 0.04
    assert "offline finds" in document["sentence"]
    # One model decides nothing, however clear it is there.
    assert [each["better"] for each in document["comparisons"]] == [""]
    assert math.isfinite(document["policies"]["offline"]["discovery"]["no_op"]["estimate"])


def test_time_does_not_count_when_agents_are_judged(runs):
    """What a language model reads must be the same in a second run: its requests are kept by it."""
    left = []

    def slow(view):
        left.append(view.budget["seconds"])
        time.sleep(0.6)
        action = yield Action("list", {"what": "notes"})
        left.append(action["budget"]["seconds"])

    judged = Judged(UNALTERED, runs, Truths(None, runs, runs, 0.02))
    agent = SurgeryAgent(n_units=8)
    judged_rows(judged, {"slow": lambda: CoursePolicy("slow", slow)}, agent, range(1), 0)
    assert left == [3600, 3600]


def test_too_few_documents_are_told(tmp_path):
    config = config_of(n_units=250)
    with pytest.raises(UserError, match="220 documents can be tested"):
        judged_files(tmp_path, config)


def test_an_offline_role_is_no_language_model():
    config = config_of(with_agent=True)
    settings = config.layer_surgery
    assert isinstance(settings, LayerSurgerySettings)
    with pytest.raises(UserError, match="no language model to judge"):
        policies_of(config, settings)


@pytest.mark.slow
def test_claims_on_the_unaltered_model_are_rarer_than_alpha(model):
    """50 seeds, each with documents of its own draw. Nothing is planted, so every confirmed claim
    counts as false, whatever it says; there may not be more than what the binomial at alpha gives
    with a probability of 5 %."""
    config = config_of(policies=["offline"])
    settings = config.layer_surgery
    assert settings is not None
    assert settings.agent is not None
    defaults = SurgeryJudging()
    agent = settings.agent.model_copy(
        update={
            "n_units": defaults.n_units,
            "budget": settings.agent.budget.model_copy(update={"confirmatory": 16}),
        }
    )
    texts = [{"document_id": f"d{i}", "text": t} for i, t in enumerate(stories(464, 9))]
    rows = text_rows(model.tokenizer, texts, defaults.max_tokens, model.max_length).rows
    runs = TextRuns(model, list(rows.values())[:64], list(rows.values())[64:])
    judged = Judged(UNALTERED, runs, Truths(None, runs, runs, agent.smallest_effect))
    found = judged_rows(judged, policies_of(config, settings), agent, range(50), 0)
    # P(Binomial(50, .05) > 5) = .038
    assert sum(row["n_claims"] > 0 for row in found) <= 5


@pytest.mark.slow
def test_the_offline_agent_finds_what_is_planted(model, documents):
    config = config_of(policies=["offline"])
    settings = config.layer_surgery
    assert settings is not None
    assert settings.agent is not None
    agent = settings.agent.model_copy(
        update={
            "n_units": 24,
            "budget": settings.agent.budget.model_copy(update={"confirmatory": 16}),
        }
    )
    unaltered = TextRuns(model, documents[:64], documents[64:])
    for anomaly in (
        Anomaly("no_op", (1,)), Anomaly("no_op", (5,)), Anomaly("swapped", (4, 5)),
        Anomaly("swapped", (5, 6)), Anomaly("scaled", (3,), 0.3), Anomaly("scaled", (5,), 0.3),
    ):  # fmt: skip
        runs = TextRuns(planted(model, anomaly), documents[:64], documents[64:])
        judged = Judged(str(anomaly), runs, Truths(anomaly, runs, unaltered, 0.02))
        rows = judged_rows(judged, policies_of(config, settings), agent, range(4), 0)
        assert sum(row["discovered"] for row in rows) >= 3, anomaly
