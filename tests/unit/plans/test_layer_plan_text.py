"""Layer plans as text and as requests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.plans.layer_plan import METHODS, Ablation, LayerPlan, Step
from interpflow.plans.requests import KINDS, named_plan, request_schema

N_LAYERS, N_HEADS = 6, 4
BLOCKS = st.integers(0, 99)


def ablations() -> st.SearchStrategy[Ablation | None]:
    parts = st.sampled_from(["attention", "mlp", "block"])
    whole = st.builds(Ablation, parts, st.sampled_from(METHODS))
    heads = st.builds(Ablation, st.just("head"), st.sampled_from(METHODS), st.integers(0, 200))
    return st.none() | whole | heads


def steps() -> st.SearchStrategy[Step]:
    factors = st.just(1.0) | st.floats(allow_nan=False, allow_infinity=False)
    one = st.builds(Step, st.tuples(BLOCKS), ablations(), factors)
    together = st.lists(BLOCKS, min_size=2, max_size=5).map(lambda blocks: Step(tuple(blocks)))
    return one | together


@given(st.lists(steps(), max_size=8).map(lambda found: LayerPlan(tuple(found))))
def test_a_plan_is_read_as_it_was_written(plan: LayerPlan) -> None:
    assert LayerPlan.parse(str(plan)) == plan
    assert LayerPlan.parse(f"  {plan} ") == plan


@given(st.lists(steps(), max_size=4), st.lists(steps(), max_size=4))
def test_two_plans_are_written_alike_only_if_they_are(left: list[Step], right: list[Step]) -> None:
    a, b = LayerPlan(tuple(left)), LayerPlan(tuple(right))
    assert (str(a) == str(b)) == (a == b)


def test_what_is_written() -> None:
    assert str(LayerPlan.of([])) == "-"
    plan = LayerPlan.parse("0 (1|2) 3~mean_head2*0.1 4~zero_mlp 5*-2")
    assert plan.blocks == (0, 1, 2, 3, 4, 5)
    assert plan.n_blocks == 6
    assert plan.steps[2] == Step((3,), Ablation("head", "mean", 2), 0.1)
    assert plan.steps[4] == Step((5,), factor=-2.0)
    assert not plan.is_identity(6)
    assert LayerPlan.parse("0 1 2").is_identity(3)


@pytest.mark.parametrize(
    "text",
    ["", "0,1", "-1", "0 x", "(1)", "(1|2)*2", "0~cut_mlp", "0~zero_head", "0~zero_mlp3", "0*nan",
     "0*", "0 ~zero_mlp"],
)  # fmt: skip
def test_what_is_no_plan_is_an_error(text: str) -> None:
    with pytest.raises(UserError):
        LayerPlan.parse(text)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_is_a_number(factor: float) -> None:
    with pytest.raises(UserError, match="cannot be multiplied"):
        Step((0,), factor=factor)


ASKED: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "identity"}, "intact", "0 1 2 3 4 5"),
    ({"kind": "keep_first", "n": 0}, "first 0", "-"),
    ({"kind": "keep_first", "n": 2}, "first 2", "0 1"),
    ({"kind": "keep_last", "n": 2}, "last 2", "4 5"),
    ({"kind": "skip", "blocks": [4, 1, 2]}, "skip 1–2, 4", "0 3 5"),
    ({"kind": "repeat", "first": 2, "times": 3}, "repeat 2 ×3", "0 1 2 2 2 3 4 5"),
    ({"kind": "repeat", "first": 1, "last": 2, "times": 2}, "repeat 1–2 ×2", "0 1 2 1 2 3 4 5"),
    ({"kind": "repeat", "first": 3, "times": 1}, "repeat 3 ×1", "0 1 2 3 4 5"),
    ({"kind": "swap", "block": 4, "with_block": 1}, "swap 1 4", "0 4 2 3 1 5"),
    ({"kind": "reverse"}, "reverse 0–5", "5 4 3 2 1 0"),
    ({"kind": "reverse", "first": 1, "last": 3}, "reverse 1–3", "0 3 2 1 4 5"),
    ({"kind": "parallel", "first": 1, "last": 3}, "parallel 1–3", "0 (1|2|3) 4 5"),
    ({"kind": "ablate", "block": 1, "part": "mlp", "method": "zero"}, "zero mlp of 1",
     "0 1~zero_mlp 2 3 4 5"),
    ({"kind": "ablate", "block": 1, "part": "head", "method": "mean", "head": 3},
     "mean head 3 of 1", "0 1~mean_head3 2 3 4 5"),
    ({"kind": "scale", "block": 2, "factor": 0.5}, "block 2 ×0.5", "0 1 2*0.5 3 4 5"),
    ({"kind": "steps", "steps": "0 (1|2)"}, "0 (1|2)", "0 (1|2)"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "label", "text"), ASKED)
def test_a_request_gives_its_plan(request_: dict[str, Any], label: str, text: str) -> None:
    found = named_plan(request_, N_LAYERS, N_HEADS)
    assert (found.label, str(found.plan), found.kind) == (label, text, request_["kind"])


def test_a_random_order_is_that_of_its_seed() -> None:
    asked = {"kind": "permute", "seed": 3, "first": 1, "last": 4}
    plan = named_plan(asked, N_LAYERS, N_HEADS).plan
    assert plan == named_plan(asked, N_LAYERS, N_HEADS).plan
    assert sorted(plan.blocks) == list(range(N_LAYERS))
    assert (plan.blocks[0], plan.blocks[-1]) == (0, 5)
    orders = {named_plan({**asked, "seed": s}, N_LAYERS, N_HEADS).plan for s in range(40)}
    assert len(orders) > 15


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({}, "no kind of plan None"),
        ({"kind": "shuffle"}, "no kind of plan 'shuffle'"),
        ({"kind": "swap", "block": 1}, "needs with_block"),
        ({"kind": "identity", "n": 1}, "takes no n"),
        ({"kind": "skip", "blocks": [6]}, "no block 6"),
        ({"kind": "swap", "block": 0, "with_block": 9}, "no block 9"),
        ({"kind": "keep_first", "n": 7}, "7 blocks cannot be kept"),
        ({"kind": "parallel", "first": 3, "last": 2}, "range from 3 to 2 is empty"),
        ({"kind": "steps", "steps": "0 17"}, "no block 17"),
        ({"kind": "steps", "steps": "0 1~zero_head4"}, "no head 4"),
        ({"kind": "steps", "steps": " ".join(["0"] * 49)}, "plan of 49 blocks for a model of 6"),
        ({"kind": "ablate", "block": 0, "part": "head", "method": "zero"}, "a head is named"),
    ],
)
def test_what_cannot_be_asked_for_is_named(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as raised:
        named_plan(request_, N_LAYERS, N_HEADS, where="plans.own[0]")
    assert "plans.own[0]" in str(raised.value)


def test_the_schema_names_every_kind_and_argument() -> None:
    schema = request_schema()
    assert schema["properties"]["kind"]["enum"] == list(KINDS)
    taken = {name for needed, optional, _ in KINDS.values() for name in (*needed, *optional)}
    assert taken == set(schema["properties"]) - {"kind"}
