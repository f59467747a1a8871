"""Actions on words: hypotheses, their revision, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from interpflow.agent.record.records import Hypothesis, Note
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.agent.work.notebook import Notebook
from interpflow.agent.work.registration import withdraw
from interpflow.errors import UserError


def hypothesize(book: Notebook, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A new hypothesis, open until a test of it is decided."""
    if arguments.get("parent"):
        book.hypothesis(arguments["parent"])
    claim = _claim(book, arguments)
    hypothesis = Hypothesis(
        book.next_id("H"), arguments["text"], arguments["scope"], arguments["probability"],
        arguments.get("parent", ""), claim,
    )  # fmt: skip
    return {"hypothesis": _entered(book, hypothesis)}


def revise(book: Notebook, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A new hypothesis in the place of an old one, whose verdict stands."""
    parent = book.hypothesis(arguments["parent"])
    if parent.status == "revised":
        raise UserError(
            f"{parent.id} is revised already", where="parent", remedy="revise what replaced it"
        )
    claim = _claim(book, arguments) if "claim" in arguments else parent.claim
    hypothesis = Hypothesis(
        book.next_id("H"), arguments["text"], parent.scope,
        arguments.get("probability", parent.probability), parent.id, claim,
    )  # fmt: skip
    waiting = book.open_registration
    if waiting is not None and waiting.hypothesis == parent.id:
        withdraw(book, waiting, f"{parent.id} is revised")
    if parent.status == "open":
        book.hypotheses[parent.id] = replace(parent, status="revised")
    book.inconclusive = 0
    shown = _entered(book, hypothesis, reason=arguments["reason"])
    return {"hypothesis": shown}


def note(book: Notebook, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What is noted rests on something, but for a question."""
    refs = tuple(arguments.get("refs", ()))
    if not refs and arguments["kind"] != "question":
        raise UserError(
            f"a note of the kind {arguments['kind']} needs refs",
            where="note.refs",
            remedy="name the results, registrations or hypotheses that it rests on",
        )
    for id in refs:
        book.found(id)
    noted = Note(book.next_id("N"), arguments["kind"], arguments["text"], refs)
    book.notes[noted.id] = noted
    return {"note": noted.id}


def _claim(book: Notebook, arguments: Mapping[str, Any]) -> AnomalyClaim | None:
    """The typed claim, of blocks that the model has."""
    if not arguments.get("claim"):
        return None
    claim = AnomalyClaim.of(arguments["claim"])
    book.laboratory.plan(claim.plan)
    return claim


def _entered(book: Notebook, hypothesis: Hypothesis, **more: Any) -> dict[str, Any]:
    book.hypotheses[hypothesis.id] = hypothesis
    book.ledger.append("hypothesis", {**hypothesis.to_dict(), **more}, book.now)
    return {**hypothesis.to_dict(), "status": hypothesis.status}
