"""The end of the work: placebos are told and their tests run, what stays unverified is listed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from interpflow.agent.record.records import UNFINISHED, Registration
from interpflow.agent.work.notebook import Notebook
from interpflow.agent.work.registration import enter_result, register
from interpflow.agent.work.trials import trial_result
from interpflow.errors import UserError


def is_due(book: Notebook) -> bool:
    """Whether something is left to be run or told before a report."""
    return book.phase == "working" and (book.open_registration is not None or bool(book.placebos))


def close(book: Notebook, reason: str) -> dict[str, Any]:
    """Finish: what was registered and not run stays unfinished; each test whose slot went to a
    placebo is run on units of its own."""
    book.phase = "closing"
    waiting = book.open_registration
    if waiting is not None:
        _unfinished(book, waiting, reason)
    told = [_rerun(book, book.registrations[id]) for id in book.placebos]
    return {
        "reason": reason,
        "placebos": told,
        "unverified": unverified(book),
        "next": "report now: only results of this ledger count, placebos do not",
    }


def unverified(book: Notebook) -> list[dict[str, str]]:
    """Hypotheses without a verdict, and tests without a result."""
    open_ones = [h for h in book.hypotheses.values() if h.status in ("open", UNFINISHED.lower())]
    unrun = [r for r in book.registrations.values() if r.state == "unrun"]
    return [{"id": h.id, "text": h.text} for h in open_ones] + [
        {"id": r.id, "text": f"{r.subject.plan.label}: {r.prediction}, not run"} for r in unrun
    ]


def _unfinished(book: Notebook, registered: Registration, reason: str) -> None:
    book.registrations[registered.id] = replace(registered, state="unrun")
    book.slots.decide(math.nan, False)
    content = {"registration": registered.id, "verdict": UNFINISHED, "reason": reason}
    book.ledger.append("unfinished", content, book.now)


def _rerun(book: Notebook, first: Registration) -> dict[str, Any]:
    """The test that a placebo displaced, as a further one."""
    hypothesis = book.hypotheses[first.hypothesis]
    told = {"registration": first.id, "placebo": book.placebos[first.id].to_dict()["verdict"]}
    allowed = book.settings.budget.forward_tokens - book.spent.forward_tokens
    try:
        again = register(
            book, hypothesis, first.subject, first.metric, first.prediction, first.probability,
            len(first.units), first.power, rerun_of=first.id,
        )  # fmt: skip
    except UserError as error:
        content = {"registration": first.id, "rerun": "", "reason": error.what}
        book.ledger.append("placebo", content, book.now)
        _set_status(book, first, UNFINISHED.lower())
        return {**told, "rerun": "", "why": error.what}
    book.ledger.append("placebo", {"registration": first.id, "rerun": again.id}, book.now)
    try:
        result = trial_result(book, again, allowed=allowed)
    except UserError as error:
        _unfinished(book, again, error.what)
        _set_status(book, first, UNFINISHED.lower())
        return {**told, "rerun": again.id, "why": error.what}
    enter_result(book, again, result)
    return {**told, "rerun": again.id, "result": result.to_dict()}


def _set_status(book: Notebook, registered: Registration, status: str) -> None:
    hypothesis = book.hypotheses[registered.hypothesis]
    if hypothesis.status != "revised":
        book.hypotheses[hypothesis.id] = replace(hypothesis, status=status)
