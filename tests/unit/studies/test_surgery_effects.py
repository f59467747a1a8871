"""Effects of layer plans: planted ones are found, with their sizes, and nothing else."""

import math
from pathlib import Path
from typing import Any

import pytest
from surgery_tables import N_LAYERS, swept, write_sweep

from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryAnalysis
from interpflow.errors import UserError
from interpflow.plans.families import SweepPlan
from interpflow.studies.layer_surgery.effects.claim_list import (
    CLAIMS_FILE,
    chosen_plans,
    read_claims,
)
from interpflow.studies.layer_surgery.effects.claims import echoes
from interpflow.studies.layer_surgery.effects.effects_stage import DOCUMENT, estimate_effects
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table

FEW = LayerSurgerySettings(analysis=SurgeryAnalysis(n_permutations=499, n_resamples=199))


def skipped(plan: SweepPlan) -> set[int]:
    return set(range(N_LAYERS)) - set(plan.plan.blocks)


def planted_loss(plan: SweepPlan) -> float:
    """The first block matters most, the last one some, ranges less than sets of equal depth."""
    row = plan.to_row(N_LAYERS)
    if plan.role == "random_order":
        return 0.15 * row["distance"] + 2.0 * row["moves_first"]
    gone = skipped(plan)
    cost = 3.0 * (0 in gone) + 0.8 * (N_LAYERS - 1 in gone) + 0.3 * len(gone)
    if plan.role == "control":
        cost += 0.5
    if "repeat" in plan.families:
        first, last = plan.plan.blocks.count(0) > 1, plan.plan.blocks.count(N_LAYERS - 1) > 1
        cost += 2.0 if first else 1.0 if last else 0.2
    return cost + 0.2 * ("swap" in plan.families)


def planted_retention(plan: SweepPlan, task: str) -> float:
    """JSON needs 4 blocks, facts 6, sums all; without the first block nothing is answered."""
    if 0 in skipped(plan):
        return 0.0
    if "keep_first" in plan.families:
        return float(plan.plan.n_blocks >= {"json": 4, "world_facts": 6, "addition": 8}[task])
    return 0.97


def estimated(folder: Path, **planted: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    paths = write_sweep(folder, **planted)
    estimate_effects(
        "m", FEW, 1, **paths, estimates_path=folder / "effects.parquet",
        document_path=folder / "effects.json",
    )  # fmt: skip
    rows = read_rows(folder / "effects.parquet", "estimates")
    return rows, read_document(folder / "effects.json", DOCUMENT)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return estimated(
        tmp_path_factory.mktemp("planted"), loss=planted_loss, retained=planted_retention,
        generated=lambda plan, item: "is is is" if plan.plan.n_blocks == 1 else "nothing",
        depths={"json": 3.0, "world_facts": 5.0, "addition": 6.5},
    )  # fmt: skip


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    return estimated(
        tmp_path_factory.mktemp("null"), loss=lambda plan: 0.0, retained=lambda plan, task: 1.0
    )


def one(rows, analysis, factor, level, quantity=None):
    chosen = [
        row
        for row in rows
        if (row["analysis"], row["factor"], row["level"]) == (analysis, factor, level)
        and quantity in (None, row["quantity"])
    ]
    assert len(chosen) == 1, (analysis, factor, level, len(chosen))
    return chosen[0]


def verdicts(document):
    return {claim["name"]: claim["verdict"] for claim in document["claims"]}


def test_loss_changes_are_those_planted(found):
    rows, _ = found
    for plan in swept():
        if "skip_each" not in plan.families:
            continue
        row = one(rows, "text", "skip_each", plan.named.label, "loss change")
        assert row["ci_low"] - 0.02 <= planted_loss(plan) <= row["ci_high"] + 0.02
        assert row["p_adjusted"] < 0.05
        assert row["n_units"] == 60
        assert row["family"] == "text by skip_each"
    kept = one(rows, "text", "skip_each", "skip 3", "top-1 kept")
    assert kept["estimate"] == pytest.approx(0.7, abs=0.05)


def test_a_plan_of_two_families_is_in_both(found):
    rows, _ = found
    skip = one(rows, "text", "skip_each", "skip 7", "loss change")
    keep = one(rows, "text", "keep_first", "first 7", "loss change")
    assert skip["estimate"] == keep["estimate"]


def test_null_band(found):
    rows, _ = found
    band = one(rows, "null band", "random orders", "all")
    assert 0 < band["ci_low"] < band["estimate"] < band["ci_high"]
    mild = one(rows, "null band", "skip_each: all orders", "skip 3")
    assert mild["p_value"] < 0.1
    harsh = one(rows, "null band", "skip_range: all orders", "skip 0–3")
    assert harsh["p_value"] > 0.3
    near = one(rows, "null band", "swap: orders as far", "swap 3 4")
    assert 0 < near["n_units"] < mild["n_units"]


def test_an_order_that_moves_an_end_is_compared_with_orders_that_move_it(tmp_path):
    paths = write_sweep(tmp_path, loss=planted_loss, retained=planted_retention)
    orders = read_rows(paths["plans_path"], "surgery_plans")
    first = {row["plan"] for row in orders if row["moves_first"]}
    # The first block alone decides: a swap of it is as mild as any order that moves it.
    rows = [
        {**row, "delta_loss": 10.0 if row["plan"] in first else 0.1}
        for row in read_rows(paths["losses_path"], "surgery_text_losses")
    ]
    write_table(paths["losses_path"], "surgery_text_losses", rows)
    estimate_effects(
        "m", FEW, 1, **paths, estimates_path=tmp_path / "effects.parquet",
        document_path=tmp_path / "effects.json",
    )  # fmt: skip
    found = read_rows(tmp_path / "effects.parquet", "estimates")
    for label in ("swap 0 1", "swap 6 7", "swap 3 4"):
        near = one(found, "null band", "swap: orders as far", label)
        moved = [
            (label == "swap 0 1", label == "swap 6 7") == (row["moves_first"], row["moves_last"])
            for row in orders
            if row["role"] == "random_order"
        ]
        assert 0 < near["n_units"] <= sum(moved)
        assert near["estimate"] == near["p_value"] == 1.0


def test_the_band_is_compared_on_its_own_documents(tmp_path):
    paths = write_sweep(tmp_path, loss=planted_loss, retained=planted_retention)
    orders = {str(plan.plan) for plan in swept() if plan.role == "random_order"}
    rows = [
        # On the other documents everything costs more than any order does on these.
        row if few else {**row, "delta_loss": row["delta_loss"] + 100}
        for row in read_rows(paths["losses_path"], "surgery_text_losses")
        for few in [int(row["document_id"][1:]) < 20]
        if few or row["plan"] not in orders
    ]
    write_table(paths["losses_path"], "surgery_text_losses", rows)
    estimate_effects(
        "m", FEW, 1, **paths, estimates_path=tmp_path / "effects.parquet",
        document_path=tmp_path / "effects.json",
    )  # fmt: skip
    found = read_rows(tmp_path / "effects.parquet", "estimates")
    assert one(found, "null band", "skip_each: all orders", "skip 3")["p_value"] < 0.1


def test_ranges_are_milder_than_their_controls(found):
    rows, _ = found
    row = one(rows, "against controls", "skip_range", "skip 3–4", "loss beyond controls")
    assert row["estimate"] == pytest.approx(-0.5, abs=0.06)
    assert row["ci_high"] < 0


def test_damage_goes_with_distance(found):
    rows, _ = found
    inner = one(rows, "order distance", "inner orders", "")
    assert inner["estimate"] > 0.9
    assert inner["p_value"] <= 0.01
    curve = [row for row in rows if row["factor"] == "inner orders: curve" and row["n_units"]]
    values = [row["estimate"] for row in curve]
    assert values == sorted(values)


def test_retention_and_answers(found):
    rows, _ = found
    for n in range(N_LAYERS):
        row = one(rows, "answers keep_first", "json", f"first {n}", "retention")
        assert row["estimate"] == float(n >= 4)
    change = one(rows, "answers skip_each", "addition", "skip 0", "log-probability change")
    assert change["estimate"] == pytest.approx(-3, abs=0.1)
    assert change["p_adjusted"] < 0.05


def test_generations(found):
    rows, _ = found
    intact = one(rows, "generation", "intact", "intact", "repetition")
    short = one(rows, "generation", "keep_first", "first 1", "repetition")
    assert (intact["estimate"], short["estimate"]) == (0.0, 0.5)
    change = one(rows, "generation format", "keep_first", "first 1", "change: format")
    assert change["estimate"] == -1


def test_endpoints(found):
    rows, document = found
    endpoints = [row for row in rows if row["analysis"] == "endpoints"]
    assert len(endpoints) == 5
    assert all(row["p_adjusted"] < 0.05 for row in endpoints)
    contrast = one(rows, "endpoints", "P3 exit depth", "arithmetic − formatting")
    assert contrast["estimate"] == pytest.approx(3.5, abs=0.5)
    assert len(document["endpoints"]) == 5


def test_claims_that_are_true_of_the_planted_model(found):
    _, document = found
    decided = verdicts(document)
    assert decided == {
        "first_layer_vital": "supported",
        "first_layer_breaks_everything": "supported",
        "middle_layers_tolerant": "supported",
        "skips_keep_most_predictions": "refuted",
        "swaps_keep_most_predictions": "supported",
        # What is planted keeps the answers under repetition.
        "first_layer_twice_breaks_everything": "refuted",
        "late_repeats_tolerated": "supported",
        "last_repeat_worse_than_late_ones": "supported",
        "late_middle_least_important": "inconclusive",
        "first_layer_alone_repeats_the_last_token": "supported",
        "nearly_full_at_ten_of_twelve": "refuted",
        "json_closes_at_ten_of_twelve": "supported",
        "json_does_not_close_at_seven_of_twelve": "refuted",
        "addition_needs_all_layers": "supported",
        "formatting_before_facts_before_arithmetic": "supported",
    }
    for claim in document["claims"]:
        assert claim["numbers"]
        assert all(number["of"] for number in claim["numbers"])


def test_nothing_is_found_where_nothing_is(nothing):
    rows, document = nothing
    effects = ("text", "against controls", "answers", "order distance", "endpoints")
    wrong = [
        row
        for row in rows
        if row["analysis"].split(" ")[0] in effects or row["analysis"] in effects
        if (row["p_adjusted"] or 1.0) < 0.01
    ]
    assert not wrong
    decided = verdicts(document)
    assert decided["first_layer_vital"] == "refuted"
    assert decided["middle_layers_tolerant"] == "refuted"
    assert decided["first_layer_breaks_everything"] == "refuted"
    assert decided["formatting_before_facts_before_arithmetic"] == "refuted"
    assert decided["first_layer_alone_repeats_the_last_token"] == "refuted"


def test_a_null_result_says_what_it_could_have_seen(nothing):
    rows, _ = nothing
    row = one(rows, "text", "skip_each", "skip 3", "smallest detectable change")
    # sd 0.1, 60 documents, 8 tests: (z(1 − .05/16) + z(.8)) · .1 / √60
    assert row["estimate"] == pytest.approx((2.734 + 0.8416) * 0.1 / math.sqrt(60), rel=0.25)


def test_no_damage_at_all_has_no_correlation(tmp_path):
    rows, _ = estimated(tmp_path, loss=lambda plan: 0.0, retained=lambda plan, task: 1.0, noise=0.0)
    row = one(rows, "endpoints", "P2 order distance", "given moved ends")
    assert row["estimate"] is None
    assert "NO_VARIATION" in row["flags"]


def test_few_documents_and_families_decide_no_claim(tmp_path):
    paths = write_sweep(tmp_path, loss=planted_loss, retained=planted_retention)
    kept = {f"d{number}" for number in range(5)}
    rows = [row for row in read_rows(paths["losses_path"], "surgery_text_losses")
            if row["document_id"] in kept]  # fmt: skip
    write_table(paths["losses_path"], "surgery_text_losses", rows)
    listed = read_rows(paths["items_path"], "surgery_items")
    families = {row["family_id"] for row in listed if row["split"] == "confirm"}
    few = set(sorted(families)[:5])
    ids = {row["example_id"] for row in listed if row["family_id"] in few}
    answers = [row for row in read_rows(paths["answers_path"], "surgery_answers")
               if row["example_id"] in ids]  # fmt: skip
    write_table(paths["answers_path"], "surgery_answers", answers)
    estimate_effects(
        "m", FEW, 1, **paths, estimates_path=tmp_path / "effects.parquet",
        document_path=tmp_path / "effects.json",
    )  # fmt: skip
    claims = read_document(tmp_path / "effects.json", "layer_surgery_effects")["claims"]
    measured = [one for one in claims if one["rule"] != "echoes"]
    assert {one["verdict"] for one in measured} == {"inconclusive"}


def test_a_task_that_is_not_analysed_decides_no_claim(tmp_path):
    paths = write_sweep(tmp_path, loss=planted_loss, retained=planted_retention)
    kept = {
        row["example_id"]
        for row in read_rows(paths["items_path"], "surgery_items")
        if row["task"] != "addition"
    }
    rows = [
        row
        for row in read_rows(paths["answers_path"], "surgery_answers")
        if row["example_id"] in kept
    ]
    write_table(paths["answers_path"], "surgery_answers", rows)
    estimate_effects(
        "m", FEW, 1, **paths, estimates_path=tmp_path / "effects.parquet",
        document_path=tmp_path / "effects.json",
    )  # fmt: skip
    document = read_document(tmp_path / "effects.json", DOCUMENT)
    decided = {claim["name"]: claim for claim in document["claims"]}
    assert decided["addition_needs_all_layers"]["verdict"] == "inconclusive"
    order = decided["formatting_before_facts_before_arithmetic"]
    assert order["verdict"] == "inconclusive"
    assert "addition" in order["reason"]


def test_influence_against_damage(found, nothing):
    row = one(found[0], "block_influence", "skip_each", "")
    assert row["n_units"] == N_LAYERS
    assert row["estimate"] > 0.4
    assert one(nothing[0], "block_influence", "skip_each", "")["p_value"] > 0.001
    aligned = one(found[0], "depth_cka", "skip_each", "")
    assert (aligned["n_units"], aligned["n_dropped"]) == (N_LAYERS - 1, 1)
    assert aligned["estimate"] > 0.4


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("The capital of France is", " is is", 1.0),
        ("3 + 4 =", "= =", 1.0),
        ("a, b,", ", c", 1.0),
        ("a, b,", "b, c", 0.0),
        ("The capital of France is", "", 0.0),
        ("is", "island", 0.0),
    ],
)
def test_echo(prompt, text, expected):
    assert echoes(prompt, text) == expected


@pytest.mark.parametrize("n_layers", [4, 6, 8, 12, 28])
def test_every_claim_names_plans_of_any_usual_model(n_layers):
    for claim in read_claims():
        given = claim.given
        selectors = [*given.get("dearer", ()), *given.get("cheaper", ())]
        for selector in [*selectors, *([given["plan"]] if "plan" in given else [])]:
            assert chosen_plans(selector, n_layers), (claim.name, selector)


def test_layers_of_the_original():
    plans = chosen_plans({"family": "keep_first", "depth": 0.8333}, 12)
    assert [group[0].label for group in plans] == ["first 10"]
    late = chosen_plans({"mean": {"family": "skip_each", "at": [0.55, 0.9]}}, 12)
    assert [plan.label for plan in late[0]] == ["skip 7", "skip 8", "skip 9", "skip 10"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1", "no list"),
        ("- {name: a, text: b, source: c, rule: guess}", "no rule 'guess'"),
        ("- {name: a, text: b, rule: retention}", "without source"),
        (
            "- {name: a, text: b, source: c, rule: echoes, plan: {family: keep_first, n: 1}}",
            "at_least",
        ),
        (
            "- {name: a, text: b, source: c, rule: echoes, at_least: 1, plan: {family: hop}}",
            "names no plans",
        ),
        (
            "- {name: a, text: b, source: c, rule: echoes, at_least: 1,"
            " plan: {family: repeat, at: first}}",
            "chosen by at, times",
        ),
    ],
)
def test_claims_that_cannot_be_read(tmp_path, text, words):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_claims(path)
    assert str(path) in str(error.value)


def test_claims_are_named_once(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS_FILE.read_text() + CLAIMS_FILE.read_text())
    with pytest.raises(UserError, match="two claims"):
        read_claims(path)
