"""Sentences of a report: their numbers stand in holes that are filled from results."""

from __future__ import annotations

import re

from interpflow.agent.laboratory import METRICS
from interpflow.agent.record.records import Hypothesis, Registration, Result
from interpflow.agent.rules.effects import Effect
from interpflow.agent.work.notebook import Notebook
from interpflow.errors import UserError

_HOLE = re.compile(r"\{\{\s*([A-Z]\d+)\.([a-z_0-9]+)\s*\}\}")
_ID = re.compile(r"\b[HRXN]\d+\b")
# Numbers in words. One, two, first, second and zero are left: they are words of many sentences.
_NUMBER_WORDS = re.compile(
    r"\b(three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|"
    r"sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|half|third|fourth|fifth|sixth|"
    r"seventh|eighth|ninth|tenth|twice|thrice|\w+fold|per\s?cent)\b",
    re.IGNORECASE,
)


def result_of(book: Notebook, id: str) -> Result:
    """The result that an id of a result or a registration stands for.

    Raises UserError for what has none, and for a placebo once placebos are told.
    """
    record = book.found(id)
    if isinstance(record, Registration):
        if not record.result:
            raise UserError(
                f"{id} has no result: it is {record.state}",
                where="report",
                remedy="run it, or leave it out",
            )
        record = book.results[record.result]
    if not isinstance(record, Result):
        raise UserError(f"{id} is no result and no registration", where="report")
    if record.is_placebo and book.phase != "working":
        again = [r.id for r in book.registrations.values() if r.rerun_of == record.registration]
        raise UserError(
            f"{id} was a placebo",
            where="report",
            remedy=f"refer to {again[0]}, its test" if again else "its test could not be run",
        )
    return record


def filled(book: Notebook, text: str) -> str:
    """The sentence with its holes filled.

    Raises UserError for a hole that nothing fills, and for a number outside of holes.
    """
    check_numbers(book, text)
    return _HOLE.sub(lambda hole: _value(book, hole[1], hole[2]), text)


def numbers_from(book: Notebook, text: str) -> list[Result]:
    """The results whose measured numbers fill holes of a sentence."""
    filling = [(hole[1], hole[2]) for hole in _HOLE.finditer(text)]
    found = [
        (result_of(book, id), name)
        for id, name in filling
        if not isinstance(book.found(id), Hypothesis)
    ]
    return [result for result, name in found if name in result.effects]


def check_numbers(book: Notebook, text: str) -> None:
    """Raise UserError for a number that is no reference to the store."""
    bare = _HOLE.sub(" ", text)
    if "{{" in bare or "}}" in bare:
        raise UserError(
            "a hole cannot be read",
            where="report",
            remedy="write {{X3.delta_loss}}: an id, a point, and a metric, n, plan, against, "
            "task, predicted, verdict or claim",
        )
    for id in _ID.findall(bare):
        book.found(id)
    bare = _ID.sub(" ", bare)
    digit = next((sign for sign in bare if sign.isnumeric()), None)
    word = _NUMBER_WORDS.search(bare)
    if digit or word:
        raise UserError(
            f"a claim holds the bare number {digit or (word and word[0])!r}",
            where="report",
            remedy="numbers, blocks and names of plans stand in holes, such as {{X3.delta_loss}}, "
            "{{X3.plan}} or {{H2.claim}}",
        )


def shown_effect(effect: Effect, metric: str) -> str:
    """A number with its interval and unit."""
    unit = next((m.unit for some in METRICS.values() for m in some if m.name == metric), "")
    if effect.n < 2:
        return "undefined"
    return f"{effect.estimate:.3g} [{effect.ci_low:.3g}, {effect.ci_high:.3g}] {unit}".strip()


def _value(book: Notebook, id: str, name: str) -> str:
    record = book.found(id)
    if isinstance(record, Hypothesis):
        if name == "claim" and record.claim is not None:
            return str(record.claim)
        raise UserError(
            f"{{{{{id}.{name}}}}} is nothing", where="report", remedy="of a hypothesis: claim"
        )
    result = result_of(book, id)
    if name in result.effects:
        return shown_effect(result.effects[name], name)
    if name == "n":
        return str(len(result.units))
    if name == "plan":
        return result.subject.plan.label
    if name == "against":
        return result.subject.against.label
    if name == "task" and result.subject.task:
        return result.subject.task
    if result.judged is not None and name == "verdict":
        return result.judged.verdict
    if result.judged is not None and name == "predicted":
        return str(book.registrations[result.registration].prediction)
    known = [*result.effects, "n", "plan", "against"]
    known += ["task"] if result.subject.task else []
    known += ["verdict", "predicted"] if result.judged else []
    raise UserError(
        f"{{{{{id}.{name}}}}} is nothing", where="report", remedy=f"{id} has {', '.join(known)}"
    )
