"""The plans of a sweep: complete families, distinct plans, filled bins, fair controls."""

from collections import Counter

import numpy as np
import pytest

from interpflow.config.layer_surgery import SurgeryPlans
from interpflow.errors import UserError
from interpflow.plans.families import FAMILIES, sweep_plans
from interpflow.tables.surgery_tables import SURGERY_TABLES

N_LAYERS, N_HEADS = 8, 4


def plans(seed: int = 1, n_layers: int = N_LAYERS, **settings):
    return sweep_plans(SurgeryPlans(**settings), n_layers, N_HEADS, seed)


def members(found, family):
    return [plan for plan in found if family in plan.families]


def test_families_are_complete():
    found = plans()
    counts = Counter(family for plan in found for family in plan.families)
    assert counts["intact"] == 1
    assert counts["skip_each"] == N_LAYERS
    assert counts["keep_first"] == N_LAYERS
    assert counts["keep_last"] == N_LAYERS - 1
    assert counts["repeat"] == 3 * N_LAYERS
    assert counts["swap"] == N_LAYERS - 1
    assert counts["reverse"] == 1
    assert counts["ablate"] == 2 * N_LAYERS
    assert counts["random_order"] + counts["random_inner_order"] == 200
    assert {plan.kind for plan in found if plan.role == "structured"} <= set(FAMILIES)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 5, 12, 24])
def test_plans_are_distinct_and_of_this_model(n_layers):
    found = plans(n_layers=n_layers)
    assert len({plan.plan for plan in found}) == len(found)
    assert found[0].plan.is_identity(n_layers)
    for plan in found:
        plan.plan.check(n_layers, N_HEADS)


def test_a_plan_of_two_families_is_run_once_and_found_in_both():
    found = plans()
    last = [plan for plan in found if str(plan.plan) == "0 1 2 3 4 5 6"]
    assert len(last) == 1
    assert set(last[0].families) == {"skip_each", "keep_first"}


def test_same_seed_same_plans():
    assert plans(3) == plans(3)
    one, other = plans(3), plans(4)
    assert [p for p in one if p.role == "structured"] == [
        p for p in other if p.role == "structured"
    ]
    assert one != other


def test_random_orders_fill_the_distances():
    rows = [plan.to_row(N_LAYERS) for plan in plans() if plan.role == "random_order"]
    assert len(rows) == 200
    distances = [row["distance"] for row in rows]
    assert np.histogram(distances, 8, (0.5, 28.5))[0].min() >= 5
    inner = [row for row in rows if row["kind"] == "random_inner_order"]
    assert not any(row["moves_first"] or row["moves_last"] for row in inner)
    assert np.histogram([row["distance"] for row in inner], 8, (0.5, 15.5))[0].min() >= 1


def test_controls_are_of_equal_depth():
    found = plans()
    ranges = {str(plan.plan): plan for plan in members(found, "skip_range")}
    controls = [plan for plan in found if plan.role == "control"]
    assert {plan.control_of for plan in controls} <= set(ranges)
    for control in controls:
        skipped = set(range(N_LAYERS)) - set(control.plan.blocks)
        of = set(range(N_LAYERS)) - set(ranges[control.control_of].plan.blocks)
        assert len(skipped) == len(of)
        assert skipped != of
        assert abs(np.mean(list(skipped)) - np.mean(list(of))) <= 1
        for end in (0, N_LAYERS - 1):
            assert (end in skipped) == (end in of)
        assert max(skipped) - min(skipped) + 1 > len(skipped), "a control is no range itself"
    assert max(Counter(control.control_of for control in controls).values()) <= 8


def test_controls_of_a_deep_model():
    found = plans(n_layers=40, random_orders=0, repeats=[], controls=4)
    controls = [plan for plan in found if plan.role == "control"]
    assert len(controls) >= 16


def test_heads_and_methods_if_asked():
    found = plans(heads=True, ablations=["zero", "mean"])
    assert len(members(found, "ablate_head")) == 2 * N_LAYERS * N_HEADS
    assert len(members(found, "ablate")) == 2 * 2 * N_LAYERS


def test_everything_off_leaves_the_single_skips():
    found = plans(
        skip_ranges=False, keep=False, repeats=[], swaps=False, reverse=False, parallel=False,
        ablations=[], random_orders=0, controls=0,
    )  # fmt: skip
    assert [plan.kind for plan in found] == ["intact"] + ["skip_each"] * N_LAYERS


def test_own_plans():
    found = plans(own=[{"kind": "steps", "steps": "0 1 (2|3) 4"}, {"kind": "skip", "blocks": [3]}])
    assert [str(plan.plan) for plan in members(found, "own")] == [
        "0 1 2 4 5 6 7",
        "0 1 (2|3) 4",
    ]


@pytest.mark.parametrize(
    ("own", "words"),
    [({"kind": "skip", "blocks": [8]}, "no block 8"), ({"kind": "leap"}, "no kind of plan")],
)
def test_an_own_plan_that_cannot_be_run(own, words):
    with pytest.raises(UserError, match=words) as error:
        plans(own=[{"kind": "identity"}, own])
    assert "layer_surgery.plans.own[1]" in str(error.value)


def test_rows_are_of_the_table():
    for plan in plans():
        assert set(plan.to_row(N_LAYERS)) == set(SURGERY_TABLES["surgery_plans"])
