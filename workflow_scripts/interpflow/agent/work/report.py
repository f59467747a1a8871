"""Claims of a report: no stronger than their verdicts, and every number from the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.agent.record.records import Registration
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.agent.work.claim_texts import filled, numbers_from, result_of
from interpflow.agent.work.notebook import Notebook
from interpflow.errors import UserError
from interpflow.stats.forecasts import ForecastScore, forecast_score

# The verdicts that all tests referred to must have, for each strength.
_ALLOWED = {
    "confirmed": {"CONFIRMED"},
    "direction_only": {"CONFIRMED", "DIRECTION_ONLY"},
    "refuted": {"CONTRADICTED", "NEGLIGIBLE"},
}
_AGAINST = {"CONTRADICTED", "NEGLIGIBLE"}


@dataclass(frozen=True)
class Claim:
    """A sentence of the report with its numbers, what it rests on, and the anomalies that the
    hypotheses behind its tests claim. statements: what was registered and came of it, by rule."""

    text: str
    refs: tuple[str, ...]
    strength: str
    anomalies: tuple[AnomalyClaim, ...]
    statements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text, "refs": list(self.refs), "strength": self.strength,
            "anomalies": [anomaly.to_dict() for anomaly in self.anomalies],
            "statements": list(self.statements),
        }  # fmt: skip


def accepted_claims(book: Notebook, given: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims, filled. Raises UserError for the first that must not be made as it is."""
    return [_claim(book, claim, f"report.claims.{n}") for n, claim in enumerate(given)]


def verdict_of(book: Notebook, registered: Registration) -> str:
    """The verdict of a test that was run, "" of another."""
    judged = book.results[registered.result].judged if registered.result else None
    return judged.verdict if judged is not None else ""


def real_tests(book: Notebook) -> list[Registration]:
    """Tests that were run and were no placebo, in their order."""
    return [
        each for each in book.registrations.values()
        if each.state == "run" and each.id not in book.placebos
    ]  # fmt: skip


def forecasts(book: Notebook) -> ForecastScore:
    """How good the stated probabilities of a confirmation were."""
    tests = real_tests(book)
    return forecast_score(
        [each.probability for each in tests],
        [verdict_of(book, each) == "CONFIRMED" for each in tests],
    )


def funnel(book: Notebook) -> dict[str, Any]:
    """From what was proposed to the verdicts; nothing is left out."""
    states = Counter(each.state for each in book.registrations.values())
    return {
        "proposed": len(book.hypotheses),
        "registered": len(book.registrations),
        "withdrawn": states["withdrawn"],
        "unfinished": states["unrun"],
        "run": states["run"],
        "placebos": len(book.placebos),
        "verdicts": dict(Counter(verdict_of(book, each) for each in real_tests(book))),
    }


def statement(book: Notebook, registered: Registration) -> str:
    """A registered test in words, with its verdict and numbers."""
    subject, result = registered.subject, book.results[registered.result]
    where = f" on {subject.task}" if subject.task else ""
    low, high = result.effects[registered.metric].ci_low, result.effects[registered.metric].ci_high
    estimate = result.effects[registered.metric].estimate
    return (
        f"{registered.id}: {subject.plan.label} against {subject.against.label}, "
        f"{registered.metric}{where} {registered.prediction}: {verdict_of(book, registered)}, "
        f"{estimate:.4g} [{low:.4g}, {high:.4g}], n {len(result.units)}"
    )


def _claim(book: Notebook, given: Mapping[str, Any], where: str) -> Claim:
    tests: dict[str, Registration] = {}
    try:
        for id in given["refs"]:
            result = result_of(book, id)
            if result.registration:
                tests[result.registration] = book.registrations[result.registration]
        _check_strength(book, given["strength"], list(tests.values()))
        _check_filling(book, given["strength"], given["text"], set(tests))
        text = filled(book, given["text"])
    except UserError as error:
        raise UserError(error.what, where=where, remedy=error.remedy) from None
    hypotheses = dict.fromkeys(each.hypothesis for each in tests.values())
    claims = (book.hypotheses[id].claim for id in hypotheses)
    return Claim(
        text, tuple(given["refs"]), given["strength"],
        tuple(claim for claim in claims if claim is not None),
        tuple(statement(book, each) for each in tests.values()),
    )  # fmt: skip


def _check_filling(book: Notebook, strength: str, text: str, tests: set[str]) -> None:
    """Raise UserError where a claim with a verdict shows numbers that the verdict is not about."""
    if strength == "exploratory":
        return
    for result in numbers_from(book, text):
        if result.registration not in tests:
            kind = f"of {result.registration}" if result.registration else "exploratory"
            raise UserError(
                f"a number is that of {result.id}, which is {kind}: of no test that the claim "
                "refers to",
                remedy="refer to its test, or make another claim of the strength exploratory",
            )


def _check_strength(book: Notebook, strength: str, tests: Sequence[Registration]) -> None:
    """Raise UserError where the verdicts do not carry a claim of this strength."""
    if strength == "exploratory":
        return
    verdicts = {each.id: verdict_of(book, each) for each in tests}
    if not verdicts:
        raise UserError(
            f"a claim of strength {strength} refers to no registered test",
            remedy="refer to its registration, or call it exploratory",
        )
    wrong = {id: v for id, v in verdicts.items() if v not in _ALLOWED.get(strength, {v})}
    if wrong:
        id, found = next(iter(wrong.items()))
        raise UserError(
            f"the verdict on {id} is {found}: that is not {strength}",
            remedy="claim no more than the verdict says",
        )
    about = {each.hypothesis for each in tests}
    others = {
        each.id: verdict_of(book, each)
        for each in book.registrations.values()
        if each.hypothesis in about and each.state == "run"
        and (each.id not in book.placebos or book.phase == "working")
    }  # fmt: skip
    against = [id for id, v in others.items() if v in _AGAINST and id not in verdicts]
    if strength in ("confirmed", "direction_only") and against:
        raise UserError(
            f"{against[0]}, a test of the same hypothesis, speaks against it",
            remedy="refer to it too and call the claim inconclusive",
        )
