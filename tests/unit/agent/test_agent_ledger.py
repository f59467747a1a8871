"""The chain of the ledger, placebos, and what a report may say."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interpflow.agent.conduct import outcome_of, run_agent
from interpflow.agent.policies.fixed_sweep import fixed_sweep
from interpflow.agent.policies.scientist import scientist
from interpflow.agent.record.ledger import Ledger, verify
from interpflow.agent.rules.actions import Action
from interpflow.agent.rules.slots import Slots
from interpflow.agent.work.report_pages import markdown
from interpflow.agent.work.session import LEDGER, Session
from interpflow.errors import UserError
from tests.unit.agent.fake_laboratory import FakeLaboratory, settings
from tests.unit.agent.test_agent_session import HYPOTHESIS, SKIP, of_skip


def test_the_chain_breaks_where_a_record_is_changed_taken_out_or_put_in(tmp_path: Path) -> None:
    run_agent(
        settings(), FakeLaboratory("swapped", (3, 4)), scientist(anomalies_only=True), tmp_path, 1
    )
    records = [json.loads(line) for line in (tmp_path / LEDGER).read_text().splitlines()]
    verify(records)
    kinds = [record["kind"] for record in records]
    assert kinds == ["opening", "hypothesis", "registration", "result"]
    registration, result = records[2], records[3]
    assert registration["previous"] == records[1]["sha256"]
    for name in (
        "id", "t", "hypothesis", "estimand", "config", "code", "metric", "predicted",
        "probability", "test", "n_units", "slice", "seed", "t_index", "alpha_t", "budget_cost",
    ):  # fmt: skip
        assert name in registration
    for damage in (
        lambda some: some[2].update(probability=0.1),
        lambda some: some[3].update(verdict="CONTRADICTED"),
        lambda some: some.pop(2),
        lambda some: some.insert(1, some[1]),
        lambda some: some.reverse(),
    ):
        changed = copy.deepcopy(records)
        damage(changed)
        with pytest.raises(UserError, match="chain"):
            verify(changed)
    ledger = Ledger()
    ledger.append("result", {k: result[k] for k in ("registration", "verdict")}, 0.0)
    with pytest.raises(UserError, match="before its registration"):
        ledger.verify()


def _placebo_session(seed: int = 0, **more: Any) -> Session:
    """A session whose first slot is a placebo."""
    made = settings(budget={"confirmatory": 4}, placebo_share=0.5, **more)
    found = next(s for s in range(seed, 100) if Slots(made, s).may_be_placebo(1))
    return Session(made, FakeLaboratory(), None, found, clock=lambda: 0.0)


def test_a_placebo_is_hidden_until_the_end_and_its_test_is_run_again() -> None:
    work = _placebo_session()
    work.act(Action("hypothesize", HYPOTHESIS))
    registered = work.act(Action("preregister", of_skip()))
    told = work.act(Action("run", {"registration": "R1"}))
    assert "placebo" not in json.dumps([registered, told])
    assert told["result"]["verdict"] != "CONFIRMED"
    assert told["result"]["effects"]["delta_loss"]["sd"] > 0.1  # it looks like data
    report = {"text": "It is needed.", "refs": ["R1"], "strength": "confirmed"}
    assert "that is not confirmed" in work.act(Action("report", {"claims": [report]}))["error"]
    found = work.act(Action("report", {"claims": []}))
    (placebo,) = found["closing"]["placebos"]
    assert placebo["registration"] == "R1"
    assert placebo["rerun"] == "R2"
    assert placebo["result"]["verdict"] == "CONFIRMED"
    assert not work.ended  # once more, now that it is known
    refused = work.act(Action("report", {"claims": [report]}))
    assert "R1 was a placebo" in refused["error"]
    assert "R2" in refused["remedy"]
    work.act(Action("report", {"claims": [{**report, "refs": ["R2"]}]}))
    assert work.ended
    outcome = outcome_of(work, "test")
    assert (outcome.n_placebos, outcome.placebos_confirmed) == (1, 0)
    assert [row["is_placebo"] for row in outcome.tests] == [True, False]
    assert [row["rerun_of"] for row in outcome.tests] == ["", "R1"]
    assert outcome.forecast.n == 1
    first, again = work.book.registrations.values()
    assert not set(first.units) & set(again.units)
    assert [each["kind"] for each in work.book.ledger.records][-3:] == [
        "registration", "placebo", "result",
    ]  # fmt: skip


def test_a_prediction_that_holds_without_an_effect_takes_no_placebo() -> None:
    work = _placebo_session()
    work.act(Action("hypothesize", HYPOTHESIS))
    work.act(Action("preregister", of_skip(prediction={"within": [-9.0, 9.0]})))
    assert work.act(Action("run", {"registration": "R1"}))["result"]["verdict"] == "CONFIRMED"
    assert not work.book.placebos


def test_placebos_keep_within_the_budget_and_depend_on_the_seed() -> None:
    made = settings(budget={"confirmatory": 22}, placebo_share=0.1)
    drawn = [Slots(made, seed) for seed in range(40)]
    assert {slots.n_own for slots in drawn} == {20}
    shares = np.mean([[slots.may_be_placebo(t) for t in range(1, 21)] for slots in drawn])
    assert shares == pytest.approx(0.1)
    assert len({slots.commitment for slots in drawn}) > 30
    outcome = run_agent(made, FakeLaboratory(), fixed_sweep(), None, 1)
    assert outcome.spent.confirmatory <= 22


def _with_results() -> Session:
    work = Session(settings(placebo_share=0), FakeLaboratory(), None, 1, clock=lambda: 0.0)
    work.act(Action("explore", {"plans": [SKIP], "measure": "text"}))
    claim = {"kind": "no_op", "blocks": [3]}
    work.act(Action("hypothesize", HYPOTHESIS))
    work.act(Action("hypothesize", {**HYPOTHESIS, "claim": claim}))
    for id, prediction in (("H1", {"sign": "increase"}), ("H2", {"within": [-0.02, 0.02]})):
        given = of_skip(hypothesis=id, prediction=prediction, accept_low_power=True)
        found = work.act(Action("preregister", given))["registration"]["id"]
        work.act(Action("run", {"registration": found}))
    return work


@pytest.mark.parametrize(
    ("text", "refs", "strength", "told"),
    [
        ("It costs 0.4 nats.", ["R1"], "confirmed", "bare number '0'"),
        ("It costs half a nat.", ["R1"], "confirmed", "bare number 'half'"),
        ("It costs ½ nat.", ["R1"], "confirmed", "bare number '½'"),
        ("It costs seventeen per cent.", ["R1"], "confirmed", "bare number 'seventeen'"),
        ("It costs {{R1.loss}}.", ["R1"], "confirmed", "is nothing"),
        ("It costs {{R9.delta_loss}}.", ["R1"], "confirmed", "no R9"),
        ("It costs {{R1}}.", ["R1"], "confirmed", "cannot be read"),
        ("It costs {{X1.delta_loss}}.", ["R1", "X1"], "confirmed", "X1, which is exploratory"),
        ("It costs {{R2.delta_loss}}.", ["R1"], "confirmed", "which is of R2"),
        ("It is needed.", ["R9"], "confirmed", "no R9"),
        ("It is needed.", ["H1"], "confirmed", "no result and no registration"),
        ("It is needed.", ["X1"], "confirmed", "no registered test"),
        ("It does nothing.", ["R2"], "confirmed", "verdict on R2 is CONTRADICTED"),
        ("It does nothing.", ["R1", "R2"], "confirmed", "verdict on R2"),
        ("It does something.", ["R1"], "refuted", "verdict on R1 is CONFIRMED"),
    ],
)
def test_a_report_that_says_more_than_the_store_fails(
    text: str, refs: list[str], strength: str, told: str
) -> None:
    work = _with_results()
    claim = {"text": text, "refs": refs, "strength": strength}
    found = work.act(Action("report", {"claims": [claim]}))
    assert told in found["error"]
    assert found["where"] == "report.claims.0"
    assert not work.ended


def test_holes_are_filled_from_results() -> None:
    work = _with_results()
    claims = [
        {"text": "{{X1.plan}} costs {{R1.delta_loss}} over {{R1.n}} documents.",
         "refs": ["R1", "X1"], "strength": "confirmed"},
        {"text": "That {{H2.claim}} is {{R2.verdict}}.", "refs": ["R2"], "strength": "refuted"},
        {"text": "<b>Maybe</b> | more.", "refs": ["X1"], "strength": "exploratory"},
    ]  # fmt: skip
    assert work.act(Action("report", {"claims": claims}))["phase"] == "ended"
    outcome = outcome_of(work, "test")
    first, second, third = outcome.claims
    effect = work.book.results[work.book.registrations["R1"].result].effects["delta_loss"]
    assert first.text == (
        f"skip 3 costs {effect.estimate:.3g} [{effect.ci_low:.3g}, {effect.ci_high:.3g}] nats per "
        "token over 32 documents."
    )
    assert second.text == "That no_op 3 is CONTRADICTED."
    assert [str(anomaly) for anomaly in second.anomalies] == ["no_op 3"]
    assert third.anomalies == ()
    page = markdown(outcome.document)
    assert "&lt;b&gt;Maybe&lt;/b&gt; \\| more." in page
    assert "2 hypotheses proposed, 2 tests registered, 2 run (0 of them placebos)" in page
    assert "always saying the base rate" in page
