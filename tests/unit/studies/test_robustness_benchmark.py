"""The benchmark of perturbed prompts on tables with planted costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_answers import DEFAULT, Planted, Simulated, simulate

from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.studies.robustness.costs.benchmark import benchmark
from interpflow.studies.robustness.costs.outcomes import (
    Condition,
    factors_of,
    read_outcomes,
    reference_conditions,
)
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows

SETTINGS = RobustnessSettings.model_validate(
    {"analysis": {"n_permutations": 499, "n_resamples": 199}}
)
Row = dict[str, Any]


def run(simulated: Simulated, directory: Path, **left_out: None) -> tuple[list[Row], Row]:
    """Estimates and document; `left_out`: inputs that the study does not have."""
    paths = {**simulated.write(directory), **left_out}
    benchmark(
        "m", SETTINGS, 1, **paths,
        estimates_path=directory / "e.parquet", document_path=directory / "d.json",
    )  # fmt: skip
    return (
        read_rows(directory / "e.parquet", "estimates"),
        read_document(directory / "d.json", "robustness_benchmark"),
    )


def one(rows: list[Row], analysis: str, factor: str, level: str, quantity: str) -> Row:
    (found,) = [
        row
        for row in rows
        if (row["analysis"], row["factor"], row["level"]) == (analysis, factor, level)
        and row["quantity"] == quantity
    ]
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Row]:
    return run(simulate(n_items=400, n_samples=4), tmp_path_factory.mktemp("full"))


def test_planted_costs_are_found(full: tuple[list[Row], Row]) -> None:
    rows, document = full
    able = document["accuracy"]["estimate"]
    for planted in DEFAULT:
        factor, level = "operator", planted.operator
        if planted.operator == "keyboard":
            factor, level = "n_edits", f"keyboard:{planted.n_edits}"
        for analysis in ("accuracy strict", "accuracy lenient", "accuracy strict (accepted)"):
            found = one(rows, analysis, factor, level, "change")
            assert found["estimate"] == pytest.approx(-planted.cost * able, abs=0.05)
    strong = one(rows, "accuracy strict", "operator", "keyboard", "change")
    assert strong["p_adjusted"] < 0.01
    assert strong["n_clusters"] == 200
    # The reference dose of keyboard is the one that the other operators have.
    again = one(rows, "accuracy strict", "n_edits", "keyboard:2", "change")
    assert strong["estimate"] == again["estimate"]
    typo = one(rows, "accuracy strict", "family", "typo", "change")
    deletion = one(rows, "accuracy strict", "operator", "deletion", "change")
    assert typo["estimate"] == pytest.approx((strong["estimate"] + deletion["estimate"]) / 2)
    beyond = one(rows, "accuracy strict", "operator − control", "keyboard", "change")
    control = one(rows, "accuracy strict", "operator", "control", "change")
    assert beyond["estimate"] == pytest.approx(strong["estimate"] - control["estimate"])


def test_the_null_operator_does_nothing_at_all(full: tuple[list[Row], Row]) -> None:
    rows, document = full
    changes = [r for r in rows if r["level"] == "null" and r["quantity"] == "change"]
    assert len(changes) > 5
    assert all(row["estimate"] == 0 and row["p_value"] == 1 for row in changes)
    assert one(rows, "flips", "operator", "null", "right to wrong")["estimate"] == 0
    assert {gate["name"]: gate["passed"] for gate in document["gates"]}["null_operator"]


def test_doses_order_the_losses(full: tuple[list[Row], Row]) -> None:
    rows, _ = full
    for quantity in (
        "log-odds per delivered dose, same prompt", "log-odds per delivered dose, over prompts",
    ):  # fmt: skip
        slope = one(rows, "dose", "operator", "keyboard", quantity)
        assert slope["ci_high"] < 0
    assert one(rows, "dose", "operator", "keyboard", "Page's L")["p_value"] < 1e-6
    reached = one(
        rows, "dose", "operator", "keyboard", "n_edits at which accuracy has fallen by 0.05"
    )
    assert 0.5 < reached["ci_low"] < reached["estimate"] < reached["ci_high"] < 2
    alike = one(rows, "dose", "operator", "keyboard", "prompts answered alike at all doses")
    assert 200 < alike["estimate"] < 400
    accuracies = [
        one(rows, "dose", "n_edits", f"keyboard:{n}", "isotonic mean")["estimate"] for n in range(4)
    ]
    assert accuracies == sorted(accuracies, reverse=True)
    kept = one(rows, "dose (accepted)", "n_edits", "keyboard:3", "isotonic mean")["n_units"]
    assert kept == one(rows, "dose (accepted)", "n_edits", "keyboard:1", "isotonic mean")["n_units"]
    assert kept < 400


def test_prompts_without_some_dose_do_not_bend_the_curve(tmp_path: Path) -> None:
    planted = [p for p in DEFAULT if p.operator in ("null", "control")]
    planted += [Planted("typo", "keyboard", 0.0, n_edits=n) for n in (1, 2, 3)]
    simulated = simulate(tuple(planted), n_items=200)
    answers = simulated.tables["robustness_answers"]
    able = {row["base_id"] for row in answers
            if row["operator"] == "clean" and row["strict_correct"]}  # fmt: skip
    # Half of the prompts that are answered right have too few words for three edits.
    short = set(sorted(able)[::2])
    simulated.tables["robustness_answers"] = [
        row for row in answers if not (row["n_edits"] == 3 and row["base_id"] in short)
    ]
    rows, _ = run(simulated, tmp_path)
    points = [one(rows, "dose", "n_edits", f"keyboard:{n}", "isotonic mean") for n in range(4)]
    assert len({point["estimate"] for point in points}) == 1
    assert {point["n_units"] for point in points} == {200 - len(short)}
    assert {point["n_dropped"] for point in points} == {len(short)}


def test_flips_and_worst_case(full: tuple[list[Row], Row]) -> None:
    rows, document = full
    able = document["accuracy"]["estimate"]
    broken = one(rows, "flips", "operator", "keyboard", "right to wrong")
    assert broken["estimate"] == pytest.approx(0.15, abs=0.05)
    net = one(rows, "flips", "operator", "keyboard", "net flips")
    change = one(rows, "accuracy strict", "operator", "keyboard", "change")
    assert net["estimate"] == pytest.approx(change["estimate"])
    assert broken["n_units"] == round(able * 400)
    level = "worst of 5 variants"
    worst = one(rows, "flips", "worst case", level, "broken by the worst variant")
    assert worst["estimate"] == pytest.approx(1 - 0.95 * 0.85 * 0.7 * 0.9, abs=0.07)
    excess = one(rows, "flips", "worst case", level, "worst variant beyond independence")
    assert excess["ci_low"] < 0 < excess["ci_high"]
    drawn = one(
        rows, "flips", "worst case", "drawn answers to the same prompt, worst of 4",
        "broken by the worst of as many",
    )  # fmt: skip
    assert drawn["estimate"] == pytest.approx(1 - 0.8**4, abs=0.08)


def test_rewards_meaning_judges_and_mistakes(full: tuple[list[Row], Row]) -> None:
    rows, document = full
    analysis = "reward reference clean"
    change = one(rows, analysis, "operator", "keyboard", "change")
    assert change["estimate"] == pytest.approx(-0.2, abs=0.03)
    assert change["ci_high"] < 0
    for quantity in ("difference by a mixed model", "change (bootstrap)",
                     "median change (Hodges-Lehmann)"):  # fmt: skip
        found = one(rows, analysis, "operator", "keyboard", quantity)
        assert found["estimate"] == pytest.approx(change["estimate"], abs=0.02)
    assert one(rows, analysis, "operator", "keyboard", "score falls")["estimate"] > 0.9
    ranks = one(rows, analysis, "operator", "keyboard", "rank-biserial correlation")
    assert ranks["estimate"] < -0.9
    assert ranks["p_value"] < 1e-6
    spread = one(rows, analysis, "null", "two drawn answers to the same prompt",
                 "standard deviation of differences")  # fmt: skip
    assert spread["estimate"] == pytest.approx(0.5 * 2**0.5, abs=0.1)
    likeness = one(rows, "semantics cosine", "operator", "null", "mean")
    assert likeness["estimate"] > 0.95
    lower = one(rows, "semantics cosine", "n_edits", "keyboard:3",
                "drawn answers: difference from two answers to the same prompt")  # fmt: skip
    assert lower["estimate"] == pytest.approx(
        one(rows, "semantics cosine", "n_edits", "keyboard:3", "mean")["estimate"] - 0.1 - 0.9
    )
    assert one(rows, "judge j", "operator", "keyboard", "better minus worse")["ci_high"] < 0
    kinds = document["error_kinds"]
    assert kinds["keyboard"]["wrong operation"] > 30
    assert kinds["control"]["wrong operation"] == kinds["clean"]["wrong operation"] == 0
    share = one(rows, "errors", "operator", "keyboard", "wrong operation")["estimate"]
    assert share == pytest.approx(kinds["keyboard"]["wrong operation"] / 400)


def test_the_document_answers_the_questions_named_beforehand(full: tuple[list[Row], Row]) -> None:
    rows, document = full
    loss, harmless, reward = document["endpoints"]
    assert loss["about"] == "keyboard, 2 edits"
    assert harmless["about"] == "keyboard, 1 edit"
    change = one(rows, "accuracy strict", "operator", "keyboard", "change")
    assert loss["estimate"] == change["estimate"]
    # Holm over four, the fourth being tested elsewhere.
    ordered = sorted((loss, harmless, reward), key=lambda row: row["p_value"])
    assert ordered[0]["p_adjusted"] == pytest.approx(4 * ordered[0]["p_value"])
    assert harmless["p_adjusted"] > 0.05
    assert reward["estimate"] == pytest.approx(-0.2, abs=0.03)
    assert all(gate["passed"] for gate in document["gates"])
    assert document["mediation_refused"] == ""
    assert document["absent"] == {}
    assert document["n_damaged"] > 100
    assert set(document["ceiling"]) == {
        "clean accuracy", "drawn answers right", "most frequent drawn answer right"
    }  # fmt: skip
    assert "keyboard, 2 edits: accuracy moves by -" in document["sentence"]


def test_without_gold_rewards_remain(tmp_path: Path) -> None:
    rows, document = run(simulate(n_items=40, gold=False), tmp_path, judgements_path=None)
    analyses = {row["analysis"] for row in rows}
    assert not {name for name in analyses if name.startswith(("accuracy", "flips", "dose"))}
    assert {"reward reference typed", "semantics cosine"} <= analyses
    assert "gold" in document["absent"]["accuracy, flips, doses and mistakes"]
    assert "gold" in document["mediation_refused"]
    assert {gate["name"] for gate in document["gates"]} == {"null_operator"}
    assert document["endpoints"][0]["estimate"] is None
    assert document["endpoints"][2]["p_value"] is not None


def test_only_answers(tmp_path: Path) -> None:
    rows, document = run(
        simulate(n_items=40), tmp_path, samples_path=None, rewards_path=None,
        semantics_path=None, judgements_path=None,
    )  # fmt: skip
    assert set(document["absent"]) == {"self-consistency", "reward", "semantics", "judge"}
    assert document["endpoints"][2]["estimate"] is None
    assert rows


def test_a_model_at_the_floor_is_not_patched(tmp_path: Path) -> None:
    simulated = simulate(n_items=60)
    for row in simulated.tables["robustness_answers"]:
        row["strict_correct"] = row["lenient_correct"] = False
    _, document = run(simulated, tmp_path)
    assert "not answered better" in document["mediation_refused"]
    assert "Patching is refused" in document["sentence"]


def test_a_model_that_nothing_damages_is_not_patched(tmp_path: Path) -> None:
    harmless = tuple(Planted(p.family, p.operator, 0.0, p.n_edits, p.strength, p.placement)
                     for p in DEFAULT)  # fmt: skip
    _, document = run(simulate(harmless, n_items=60), tmp_path)
    assert "no perturbation" in document["mediation_refused"]
    assert "typo_cost" in document["sentence"]


def test_a_null_operator_that_changes_an_answer_fails_its_gate(tmp_path: Path) -> None:
    simulated = simulate(n_items=40)
    null = next(r for r in simulated.tables["robustness_answers"] if r["operator"] == "null")
    null["generated"] += " And so on."
    _, document = run(simulated, tmp_path)
    gate = next(gate for gate in document["gates"] if gate["name"] == "null_operator")
    assert (gate["passed"], gate["value"]) == (False, 1)


def test_prompts_too_long_are_left_out_not_wrong(tmp_path: Path) -> None:
    simulated = simulate(n_items=60)
    before = simulate(n_items=60)
    for row in simulated.tables["robustness_answers"]:
        if row["operator"] == "keyboard" and row["n_edits"] == 2 and row["base_id"] < "b0010":
            row.update(finish_reason="too_long", generated="", strict=None, lenient=None,
                       strict_correct=None, lenient_correct=None, gold_log_prob=None)  # fmt: skip
    rows, document = run(simulated, tmp_path)
    assert document["n_left_out"] == {"prompt longer than the model's context": 10}
    found = one(rows, "accuracy strict", "operator", "keyboard", "change")
    assert (found["n_units"], found["n_dropped"]) == (50, 10)
    kept = [
        float(row["strict_correct"])
        for row in before.tables["robustness_answers"]
        if row["base_id"] >= "b0010" and row["operator"] == "keyboard" and row["n_edits"] == 2
    ]
    mean = one(rows, "accuracy strict", "operator", "keyboard", "mean")
    assert mean["estimate"] == pytest.approx(np.mean(kept))


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    simulated = simulate(n_items=40)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(simulated, tmp_path / name)
    for file in ("e.parquet", "d.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_variants_without_their_prompt_are_an_error(tmp_path: Path) -> None:
    simulated = simulate(n_items=10)
    answers = simulated.tables["robustness_answers"]
    answers[:] = [r for r in answers if (r["base_id"], r["operator"]) != ("b0003", "clean")]
    with pytest.raises(UserError, match="none to the prompt itself"):
        read_outcomes(simulated.write(tmp_path)["answers_path"])


def _condition(operator: str, **fields: Any) -> Condition:
    given = {"placement": "any", "n_edits": None, "rate": None, "strength": None, **fields}
    return Condition("typo", operator, **given)


def test_factors_name_every_condition() -> None:
    conditions = [
        *(_condition("keyboard", n_edits=n, placement=p) for p in ("any", "main") for n in (1, 3)),
        _condition("keyboard", rate=0.1),
        _condition("deletion", n_edits=3),
        _condition("case", n_edits=3),
        *(_condition("polite", strength=s) for s in (1, 2, 3)),
    ]
    reference = {o: [conditions[i].dose for i in p]
                 for o, p in reference_conditions(conditions).items()}  # fmt: skip
    assert reference == {"keyboard": [3], "deletion": [3], "case": [3], "polite": [2]}
    factors = factors_of(conditions)
    assert set(factors["n_edits"]) == {
        "keyboard:1", "keyboard:3", "keyboard main:1", "keyboard main:3"
    }  # fmt: skip
    assert set(factors["rate"]) == {"keyboard:0.1"}
    assert set(factors["strength"]) == {"polite:1", "polite:2", "polite:3"}
    assert set(factors["placement"]) == {"any", "main", "keyboard:any", "keyboard:main"}
    used = {i for levels in factors.values() for places in levels.values() for i in places}
    assert used == set(range(len(conditions)))


def test_draws_are_averaged_before_prompts(tmp_path: Path) -> None:
    simulated = simulate(n_items=30, variants=3)
    paths = simulated.write(tmp_path)
    outcomes = read_outcomes(paths["answers_path"])
    assert outcomes.n_bases == 30
    assert len(outcomes.base) == 30 * 3 * len(DEFAULT)
    means = outcomes.means(outcomes.values["strict"])
    assert means.shape == (30, len(DEFAULT))
    row = next(i for i, c in enumerate(outcomes.conditions) if c.n_edits == 3)
    mine = [
        float(r["strict_correct"])
        for r in simulated.tables["robustness_answers"]
        if r["base_id"] == "b0007" and r["operator"] == "keyboard" and r["n_edits"] == 3
    ]
    assert means[outcomes.base_ids.index("b0007"), row] == pytest.approx(np.mean(mine))


def test_a_model_measured_on_what_it_wrote_says_so(tmp_path: Path) -> None:
    paths = simulate(n_items=24).write(tmp_path)
    why = "writer writes the data on which m is measured"
    benchmark(
        "m", SETTINGS, 1, contaminated=why, **paths,
        estimates_path=tmp_path / "e.parquet", document_path=tmp_path / "d.json",
    )  # fmt: skip
    rows = read_rows(tmp_path / "e.parquet", "estimates")
    assert rows
    assert all("CONTAMINATED" in row["flags"] for row in rows)
    document = read_document(tmp_path / "d.json", "robustness_benchmark")
    assert document["contaminated"] == why
    assert document["sentence"].endswith(f"CONTAMINATED: {why}.")
