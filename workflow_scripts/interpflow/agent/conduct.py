"""An agent at work from its first action to its report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interpflow.agent.laboratory import Laboratory
from interpflow.agent.policies.policy import Policy
from interpflow.agent.record.records import UNFINISHED, Registration
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.agent.work.budget import Spent
from interpflow.agent.work.closing import unverified
from interpflow.agent.work.notebook import Notebook
from interpflow.agent.work.report import Claim, forecasts, funnel, real_tests, statement, verdict_of
from interpflow.agent.work.report_pages import write_report
from interpflow.agent.work.session import Session
from interpflow.config.layer_surgery import SurgeryAgent
from interpflow.stats.forecasts import ForecastScore

logger = logging.getLogger(__name__)
PROGRESS_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """What came of an agent's work.

    tests: rows of the table surgery_tests. confirmed: anomalies whose registered test was
    CONFIRMED, with the registration; claims: those of the accepted report. document: everything,
    as report.json holds it.
    """

    policy: str
    tests: tuple[dict[str, Any], ...]
    confirmed: tuple[tuple[str, AnomalyClaim], ...]
    claims: tuple[Claim, ...]
    forecast: ForecastScore
    n_placebos: int
    placebos_confirmed: int
    spent: Spent
    stopped: str
    document: dict[str, Any]


def run_agent(
    settings: SurgeryAgent, laboratory: Laboratory, policy: Policy, directory: Path | None,
    seed: int, *, code: str = "", clock: Callable[[], float] = time.monotonic,
) -> Outcome:  # fmt: skip
    """Let a policy work until a rule, the budget or its report ends it.

    directory: keeps transcript.jsonl, ledger.jsonl, report.json and report.md, and the work goes
    on from there after a kill; None: nothing is kept. Raises UserError for a service that fails
    (everything bought is kept), and for a directory that another agent has worked in.
    """
    session = Session(settings, laboratory, directory, seed, code=code, clock=clock)
    told = time.monotonic()
    while not session.ended:
        decision = policy.next_action(session.view())
        session.act(decision.action, said=decision.said, cost=decision.cost)
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            book = session.book
            logger.info(
                "agent %s: turn %d, %d hypotheses, %d of %d tests run",
                policy.name, book.spent.turns, len(book.hypotheses), book.spent.confirmatory,
                settings.budget.confirmatory,
            )  # fmt: skip
    session.book.ledger.verify()
    outcome = outcome_of(session, policy.name)
    if directory is not None:
        write_report(outcome.document, directory)
    return outcome


def outcome_of(session: Session, policy: str) -> Outcome:
    """What came of a session that has ended."""
    book = session.book
    confirmed = tuple(
        (each.id, claim)
        for each in real_tests(book)
        if verdict_of(book, each) == "CONFIRMED"
        and (claim := book.hypotheses[each.hypothesis].claim) is not None
    )
    placebo_verdicts = [result.judged for result in book.placebos.values()]
    score = forecasts(book)
    tests = tuple(_row(book, each, policy) for each in book.registrations.values())
    return Outcome(
        policy=policy, tests=tests, confirmed=confirmed, claims=tuple(session.claims),
        forecast=score, n_placebos=len(placebo_verdicts),
        placebos_confirmed=sum(each is not None and each.confirmed for each in placebo_verdicts),
        spent=book.spent, stopped=session.stopped,
        document=_document(session, policy, score),
    )  # fmt: skip


def _row(book: Notebook, registered: Registration, policy: str) -> dict[str, Any]:
    """A row of the table surgery_tests; numbers are null where nothing was run."""
    hypothesis, subject = book.hypotheses[registered.hypothesis], registered.subject
    result = book.results.get(registered.result)
    judged = result.judged if result is not None else None
    row = judged.estimate.to_row() if judged is not None else {}
    verdict = {"withdrawn": "WITHDRAWN", "unrun": UNFINISHED, "open": UNFINISHED}
    effect = registered.prediction.smallest_effect
    return {
        "policy": policy,
        "number": registered.number,
        "registration": registered.id,
        "hypothesis": hypothesis.id,
        "text": hypothesis.text,
        "claim": str(hypothesis.claim or ""),
        "label": subject.label,
        "plan": str(subject.plan.plan),
        "against": str(subject.against.plan),
        "measure": subject.measure,
        "task": subject.task or "",
        "metric": registered.metric,
        "prediction": json.dumps(registered.prediction.to_dict()),
        "smallest_effect": effect if effect == effect else None,
        "probability": registered.probability,
        "is_placebo": result is not None and result.is_placebo,
        "rerun_of": registered.rerun_of,
        "n_units": len(registered.units),
        **{name: row.get(name) for name in ("estimate", "ci_low", "ci_high", "p_value")},
        "alpha": registered.alpha,
        "verdict": judged.verdict if judged is not None else verdict[registered.state],
    }


def _document(session: Session, policy: str, score: ForecastScore) -> dict[str, Any]:
    book = session.book
    tests = real_tests(book)
    return {
        "goal": book.settings.goal,
        "policy": policy,
        "stopped": session.stopped,
        "claims": [claim.to_dict() for claim in session.claims],
        "ledger": funnel(book),
        "tests": [statement(book, each) for each in tests],
        "hypotheses": [h.to_dict() | {"status": h.status} for h in book.hypotheses.values()],
        "notes": [note.to_dict() for note in book.notes.values()],
        "placebos": [
            {"registration": id, "verdict": result.judged.verdict if result.judged else ""}
            for id, result in book.placebos.items()
        ],
        "unverified": unverified(book),
        "forecasts": {
            name: value if value == value and abs(value) != float("inf") else None
            for name, value in asdict(score).items()
        },
        "spent": asdict(book.spent),
        "budget": book.settings.budget.model_dump(),
        "ledger_head": book.ledger.records[-1]["sha256"],
    }
