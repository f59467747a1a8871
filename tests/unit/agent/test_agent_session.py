"""The rules of a session: what is refused, registered, kept apart, and what ends it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from interpflow.agent.conduct import outcome_of
from interpflow.agent.record.transcript import Cost
from interpflow.agent.rules.actions import ACTIONS, Action, check_action, schema_of, tools
from interpflow.agent.work.session import MOST_IDLE, Session
from interpflow.errors import UserError
from tests.unit.agent.fake_laboratory import TOKENS, BoundaryLaboratory, FakeLaboratory, settings

SKIP = {"kind": "skip", "blocks": [3]}
HYPOTHESIS = {"text": "a block is needed", "scope": "text", "probability": 0.9}


def session(lab: FakeLaboratory | None = None, **more: Any) -> Session:
    return Session(settings(**more), lab or FakeLaboratory(), None, 7, clock=lambda: 0.0)


def of_skip(**more: Any) -> dict[str, Any]:
    return {
        "hypothesis": "H1", "plan": SKIP, "measure": "text", "metric": "delta_loss",
        "prediction": {"sign": "increase"}, "probability": 0.9, **more,
    }  # fmt: skip


def registered(work: Session, **more: Any) -> dict[str, Any]:
    if not work.book.hypotheses:
        work.act(Action("hypothesize", HYPOTHESIS))
    return work.act(Action("preregister", of_skip(**more)))


def test_every_action_has_a_schema_that_is_one() -> None:
    import jsonschema

    for name in ACTIONS:
        jsonschema.Draft202012Validator.check_schema(schema_of(name))
    assert [tool.name for tool in tools()] == [
        "list", "describe", "explore", "hypothesize", "preregister", "run", "compare", "note",
        "revise", "report", "stop",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "where"),
    [
        (Action("python", {"code": "1"}), "action"),
        (Action("", {}), "action"),
        (Action("explore", {"measure": "text"}), "explore"),
        (Action("explore", {"plans": [{"kind": "skip"}], "measure": "loss"}), "explore.measure"),
        (Action("explore", {"plans": [SKIP] * 17, "measure": "text"}), "explore.plans"),
        (Action("hypothesize", {**HYPOTHESIS, "probability": 1.5}), "hypothesize.probability"),
        (Action("stop", {"reason": "x", "code": "1"}), "stop"),
    ],
)
def test_an_action_that_breaks_its_schema_is_refused(action: Action, where: str) -> None:
    with pytest.raises(UserError) as caught:
        check_action(action)
    assert caught.value.where == where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (Action("explore", {"plans": [{"kind": "skip", "blocks": [12]}], "measure": "text"}),
         "there is no block 12"),
        (Action("explore", {"plans": [SKIP], "measure": "answers"}), "needs a task"),
        (Action("explore", {"plans": [SKIP], "measure": "answers", "task": "odes"}), "no task"),
        (Action("explore", {"plans": [SKIP], "measure": "text", "task": "sums"}), "has no task"),
        (Action("run", {"registration": "R1"}), "no registration"),
        (Action("note", {"kind": "observation", "text": "so"}), "needs refs"),
        (Action("note", {"kind": "observation", "text": "so", "refs": ["X9"]}), "no X9"),
        (Action("revise", {"parent": "H1", "text": "a", "reason": "b"}), "no hypothesis H1"),
        (Action("hypothesize", {**HYPOTHESIS, "claim": {"kind": "swapped", "blocks": [1]}}),
         "names 2 blocks"),
        (Action("hypothesize", {**HYPOTHESIS, "claim": {"kind": "no_op", "blocks": [40]}}),
         "no block 40"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_and_nothing_is_lost(action: Action, told: str) -> None:
    work = session()
    found = work.act(action)
    assert told in found["error"]
    assert found["errors_left"] == 9
    assert work.act(Action("explore", {"plans": [SKIP], "measure": "text"}))["results"]
    assert work.act(action)["errors_left"] == 9  # in a row


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("preregister", of_skip(n=16.0), ""),
        ("explore", {"plans": [{**SKIP, "blocks": [3.0]}], "measure": "text", "n": 4.0}, ""),
        ("list", {"what": "notes", "offset": 1.0}, ""),
        ("hypothesize", {**HYPOTHESIS, "text": "half \ud800 a pair"}, ""),
        ("no_tool_\ud800", {"\udfff": "\ud800"}, "no action"),
        ("hypothesize", {**HYPOTHESIS, "probability": math.nan}, "not of type"),
        ("preregister", of_skip(prediction={"within": [-math.inf, math.inf]}), "not of type"),
        ("preregister", of_skip(prediction={"within": [-1e308, 1e308]}), "not of type"),
        ("explore", {"plans": [{"kind": "scale", "block": 1, "factor": 10**400}],
                     "measure": "text"}, "not of type"),
    ],
)  # fmt: skip
def test_numbers_and_texts_that_no_file_takes_are_told_and_kept(
    name: str, arguments: dict[str, Any], told: str, tmp_path: Path
) -> None:
    def work() -> Session:
        return Session(settings(), FakeLaboratory(), tmp_path, 7, clock=lambda: 0.0)

    begun = work()
    begun.act(Action("hypothesize", HYPOTHESIS))
    found = begun.act(Action(name, arguments))
    assert told in found.get("error", "") if told else "error" not in found
    if name == "preregister" and not told:
        assert "error" not in begun.act(Action("run", {"registration": "R1"}))
    assert work().history == begun.history


def test_errors_in_a_row_end_the_session() -> None:
    work = session(max_errors=3)
    for _ in range(3):
        assert not work.ended
        work.act(Action("explore", {}))
    assert work.ended
    assert work.stopped == "errors"
    with pytest.raises(UserError, match="ended"):
        work.act(Action("stop", {"reason": "late"}))


def test_exploring_reads_the_exploration_pool_only_and_confirms_nothing() -> None:
    lab = FakeLaboratory()
    work = session(lab)
    found = work.act(Action("explore", {"plans": [SKIP], "measure": "text", "n": 10}))
    (result,) = found["results"]
    assert result["status"] == "exploratory"
    assert "verdict" not in result
    assert result["n"] == 10
    assert all("explore" in unit for _, units in lab.asked for unit in units)
    effect = result["effects"]["delta_loss"]
    units = lab.asked[0][1]
    changes = lab.changes(lab.plan(SKIP).plan, units)
    assert effect["estimate"] == pytest.approx(sum(changes) / 10, rel=1e-5)


def test_comparing_is_paired_by_unit() -> None:
    lab = FakeLaboratory()
    work = session(lab)
    plans = [SKIP, {"kind": "skip", "blocks": [5]}]
    work.act(Action("explore", {"plans": plans, "measure": "text"}))
    found = work.act(Action("compare", {"results": ["X1", "X2"]}))["result"]
    units = lab.asked[0][1]
    first, second = (lab.changes(lab.plan(plan).plan, units) for plan in plans)
    wanted = sum(a - b for a, b in zip(first, second, strict=True)) / len(units)
    assert found["effects"]["delta_loss"]["estimate"] == pytest.approx(wanted, rel=1e-5)
    assert found["status"] == "exploratory"


def test_a_registered_test_reads_units_that_nothing_read_before() -> None:
    lab = FakeLaboratory()
    work = session(lab, placebo_share=0)
    seen: set[str] = set()
    for _ in range(4):
        id = registered(work)["registration"]["id"]
        assert work.act(Action("run", {"registration": id}))["result"]["verdict"] == "CONFIRMED"
        units = set(lab.asked[-1][1])
        assert len(units) == 32
        assert all("confirm" in unit for unit in units)
        assert not units & seen
        seen |= units


def test_levels_follow_from_the_decisions_before() -> None:
    work = session(placebo_share=0)
    levels = []
    for sign in ("decrease", "increase", "decrease"):
        found = registered(work, prediction={"sign": sign})["registration"]
        levels.append(found["alpha"])
        work.act(Action("run", {"registration": found["id"]}))
    assert levels[1] < levels[0]  # the first rejected nothing
    assert levels[2] > levels[1]  # the second did


def test_a_slice_that_is_used_up_is_refused_with_the_reason() -> None:
    work = session(FakeLaboratory(n_confirm=40), placebo_share=0)
    registered(work)
    work.act(Action("run", {"registration": "R1"}))
    found = registered(work)
    assert "8 units are left" in found["error"]
    assert "R2" not in work.book.registrations
    assert registered(work, n=8)["registration"]["id"] == "R2"


def test_a_test_without_power_is_refused_unless_it_is_accepted() -> None:
    work = session()
    swap = {"kind": "scale", "block": 3, "factor": 1.02}
    work.act(Action("explore", {"plans": [swap], "measure": "text"}))
    found = registered(work, plan=swap)
    assert "chance of" in found["error"]
    found = registered(work, plan=swap, accept_low_power=True)
    assert found["registration"]["power"] < 0.8
    assert registered(work)["where"] == "preregister"  # one at a time


def test_one_test_is_open_at_a_time_and_a_withdrawn_one_keeps_its_level_spent() -> None:
    work = session(placebo_share=0)
    first = registered(work)["registration"]
    assert "not run" in registered(work)["error"]
    second = registered(work, replaces="R1")["registration"]
    assert second["t"] == 2
    assert second["alpha"] < first["alpha"]
    assert work.book.registrations["R1"].state == "withdrawn"
    assert "withdrawn already" in work.act(Action("run", {"registration": "R1"}))["error"]


def test_the_test_of_a_claim_is_the_one_that_decides_it() -> None:
    work = session()
    claim = {"kind": "no_op", "blocks": [3]}
    work.act(Action("hypothesize", {**HYPOTHESIS, "claim": claim}))
    for wrong in (
        {"prediction": {"sign": "increase"}},
        {"prediction": {"within": [-9.0, 9.0]}},
        {"plan": {"kind": "skip", "blocks": [2]}, "prediction": {"within": [-0.02, 0.02]}},
        {"metric": "kl", "prediction": {"within": [-0.02, 0.02]}},
        {"against": SKIP, "prediction": {"within": [-0.02, 0.02]}},
    ):
        assert "decides the claim" in registered(work, **wrong)["error"]
    assert "registration" in registered(work, prediction={"within": [-0.02, 0.02]})


def test_a_prediction_is_one_thing() -> None:
    work = session()
    for wrong in (
        {},
        {"sign": "increase", "within": [0.0, 1.0]},
        {"within": [1.0, 0.0]},
        {"smallest_effect": 0.1},
    ):
        assert "error" in registered(work, prediction=wrong)
    found = registered(work, metric="kl")  # no default but for the loss
    assert "smallest effect" in found["error"]


def test_answers_of_a_task_are_measured_with_their_own_units() -> None:
    work = session(placebo_share=0)
    more = {"measure": "answers", "task": "sums", "metric": "delta_log_prob", "n": 20}
    prediction = {"sign": "decrease", "smallest_effect": 0.1}
    found = registered(work, prediction=prediction, **more)["registration"]
    assert found["slice"] == "answers:sums[0:20]"
    result = work.act(Action("run", {"registration": "R1"}))["result"]
    assert result["verdict"] == "CONFIRMED"
    assert result["effects"]["delta_log_prob"]["estimate"] < -0.3


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"turns": 3}, "budget: turns"),
        ({"confirmatory": 1}, "budget: confirmatory"),
        ({"forward_tokens": 64 * TOKENS}, "budget: forward_tokens"),
        ({"llm_tokens": 320}, "budget: llm_tokens"),
        ({"cost_usd": 0.32}, "budget: cost_usd"),
        ({"seconds": 20.0}, "budget: seconds"),
    ],
)
def test_the_first_part_of_the_budget_that_is_used_up_ends_the_work(
    budget: dict[str, Any], reason: str
) -> None:
    now = [0.0]
    work = Session(
        settings(budget=budget, placebo_share=0), FakeLaboratory(), None, 1, clock=lambda: now[0]
    )
    steps = [
        Action("hypothesize", HYPOTHESIS),
        Action("preregister", of_skip()),
        Action("run", {"registration": "R1"}),
    ]
    for step in steps:
        now[0] += 7
        assert not work.stopped
        found = work.act(step, cost=Cost(100, 0.1))
    assert work.stopped == reason
    assert found["closing"]["reason"] == reason
    assert found["phase"] == "closing"
    # The stop contract: nothing more is run, a report may follow, and what is open is listed.
    refused = work.act(Action("explore", {"plans": [SKIP], "measure": "text"}))
    assert "nothing more is run" in refused["error"]
    assert work.act(Action("report", {"claims": []}))["phase"] == "ended"


def test_what_was_registered_and_not_run_is_unfinished_and_listed() -> None:
    work = session()
    registered(work)
    work.act(Action("hypothesize", HYPOTHESIS))
    found = work.act(Action("stop", {"reason": "enough"}))
    assert [each["id"] for each in found["closing"]["unverified"]] == ["H1", "H2", "R1"]
    work.act(Action("stop", {"reason": "no report"}))
    outcome = outcome_of(work, "test")
    assert [row["verdict"] for row in outcome.tests] == ["INCONCLUSIVE(budget)"]
    assert outcome.document["ledger"]["unfinished"] == 1


@pytest.mark.parametrize("revised", [False, True])
def test_three_inconclusive_verdicts_in_a_row_without_a_revision_end_the_work(
    revised: bool,
) -> None:
    work = session(BoundaryLaboratory(), placebo_share=0)
    for n in range(3):
        assert not work.stopped
        id = registered(work, n=8)["registration"]["id"]
        if revised and n == 2:
            work.act(Action("hypothesize", HYPOTHESIS))
            work.act(Action("revise", {"parent": "H2", "text": "b", "reason": "c"}))
        assert work.act(Action("run", {"registration": id}))["result"]["verdict"] == "INCONCLUSIVE"
    assert work.stopped == ("" if revised else "inconclusive")


def test_idling_without_an_open_hypothesis_ends_the_work() -> None:
    work = session(placebo_share=0)
    registered(work)
    work.act(Action("run", {"registration": "R1"}))
    for _ in range(MOST_IDLE - 1):
        assert not work.stopped
        work.act(Action("list", {"what": "tasks"}))
    assert work.stopped == "no open hypothesis"
