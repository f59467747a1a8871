"""Registering tests before their data exist, and running them: one at a time, by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from interpflow.agent.record.records import Hypothesis, Registration, Result, Subject
from interpflow.agent.rules.effects import Effect
from interpflow.agent.rules.predictions import Prediction
from interpflow.agent.work.notebook import Notebook
from interpflow.agent.work.trials import trial_result
from interpflow.config.identity import content_hash
from interpflow.errors import UserError
from interpflow.stats.power import power_of_mean

MIN_POWER = 0.8
# The one metric that the setting `smallest_effect` is in the unit of.
DEFAULT_METRIC = ("text", "delta_loss")


def preregister(book: Notebook, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A test of a hypothesis with its prediction, level and units, in the ledger."""
    hypothesis = book.hypothesis(arguments["hypothesis"])
    if hypothesis.status == "revised":
        raise UserError(f"{hypothesis.id} is revised", where="hypothesis")
    subject = book.subject(arguments)
    metric = _metric(book, subject, arguments["metric"])
    default = book.settings.smallest_effect if (subject.measure, metric) == DEFAULT_METRIC else None
    prediction = Prediction.of(arguments["prediction"], default)
    if hypothesis.claim is not None:
        _check_claim(book, hypothesis, subject, metric, prediction)
    n = arguments.get("n", book.settings.n_units)
    waiting = _waiting(book, arguments.get("replaces", ""))
    if book.slots.next_number + (waiting is not None) > book.slots.n_own:
        raise UserError("no confirmatory run is left", where="budget", remedy="report, or stop")
    if book.pools.left(subject.measure, subject.task) < n:
        book.pools.take(subject.measure, subject.task, n)  # refuses
    explored = _explored(book, subject, metric)
    power = None if explored is None else _power(book, prediction, explored, n)
    if power is not None and power < MIN_POWER and not arguments.get("accept_low_power"):
        raise UserError(
            f"a test of {n} units would confirm this with a chance of {power:.2f} only, by what "
            "was explored",
            where="preregister, power",
            remedy="take more units, predict a smaller effect, give up the hypothesis, or set "
            "accept_low_power",
        )
    if waiting is not None:
        withdraw(book, waiting, "replaced")
    registered = register(
        book, hypothesis, subject, metric, prediction, arguments["probability"], n, power
    )
    cost = book.ledger.records[-1]["budget_cost"]
    return {"registration": registered.to_dict(), "forward_tokens": cost}


def register(
    book: Notebook, hypothesis: Hypothesis, subject: Subject, metric: str, prediction: Prediction,
    probability: float, n: int, power: float | None, rerun_of: str = "",
) -> Registration:  # fmt: skip
    """Enter a registration: units that no test has read, a level by the decisions so far."""
    units, slice_id = book.pools.take(subject.measure, subject.task, n)
    new = Registration(
        book.next_id("R"), book.slots.next_number, hypothesis.id, subject, metric, prediction,
        probability, units, slice_id, book.slots.next_level(),
        None if power is None else round(power, 4), rerun_of=rerun_of,
    )  # fmt: skip
    content = {
        "id": new.id,
        "hypothesis": hypothesis.id,
        "estimand": {**subject.to_dict(), "of": "mean over units of plan minus against"},
        "metric": metric,
        "predicted": prediction.to_dict(),
        "probability": probability,
        "test": "one-sided t on units, or the sign test where they do not differ",
        "method": book.settings.method,
        "n_units": n,
        "slice": slice_id,
        "units_sha": content_hash(list(units)),
        "config": content_hash(book.settings.model_dump(mode="json")),
        "code": book.code,
        "seed": book.seed,
        "t_index": new.number,
        "alpha_t": new.alpha,
        "power": new.power,
        "budget_cost": book.cost([subject], units),
        "rerun_of": rerun_of,
    }
    record = book.ledger.append("registration", content, book.now)
    new = replace(new, sha256=record["sha256"])
    book.registrations[new.id] = new
    return new


def withdraw(book: Notebook, registered: Registration, reason: str) -> None:
    """Close a registration without running it; its level stays spent."""
    book.registrations[registered.id] = replace(registered, state="withdrawn")
    book.slots.decide(math.nan, False)
    book.ledger.append("withdrawal", {"registration": registered.id, "reason": reason}, book.now)


def run(book: Notebook, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run the registered test; the verdict is the rule's."""
    registered = book.registrations.get(arguments["registration"])
    if registered is None:
        raise UserError(
            f"there is no registration {arguments['registration']}",
            where="registration",
            remedy="preregister a test first",
        )
    if registered.state != "open":
        raise UserError(f"{registered.id} is {registered.state} already", where="registration")
    placebo = (
        book.slots.may_be_placebo(registered.number)
        and registered.prediction.is_false_without_effect
    )
    result = trial_result(book, registered, placebo=placebo)
    enter_result(book, registered, result)
    if placebo:
        book.placebos[registered.id] = result
    return {"result": result.to_dict()}


def enter_result(book: Notebook, registered: Registration, result: Result) -> None:
    """Book a test that was run: the decision, the verdict, the state of its hypothesis."""
    assert result.judged is not None
    judged = result.judged
    book.results[result.id] = result
    book.registrations[registered.id] = replace(registered, state="run", result=result.id)
    confirmed = judged.confirmed and not result.is_placebo
    book.slots.decide(math.nan if result.is_placebo else judged.estimate.p_value, confirmed)
    row = judged.estimate.to_row()
    book.ledger.append(
        "result",
        {
            "registration": registered.id, "result": result.id, "verdict": judged.verdict,
            "alpha_t": judged.alpha, "runs": list(result.runs),
            **{name: row[name] for name in ("estimate", "ci_low", "ci_high", "p_value", "n_units")},
        },
        book.now,
    )  # fmt: skip
    hypothesis = book.hypotheses[registered.hypothesis]
    if hypothesis.status != "revised":
        book.hypotheses[hypothesis.id] = replace(hypothesis, status=judged.verdict.lower())
    book.inconclusive = book.inconclusive + 1 if judged.verdict == "INCONCLUSIVE" else 0


def _metric(book: Notebook, subject: Subject, metric: str) -> str:
    known = book.metrics(subject.measure)
    if metric not in known:
        raise UserError(
            f"the measure {subject.measure} has no metric {metric}",
            where="metric", remedy=f"use one of {', '.join(known)}",
        )  # fmt: skip
    return metric


def _check_claim(
    book: Notebook, hypothesis: Hypothesis, subject: Subject, metric: str, prediction: Prediction
) -> None:
    """Raise UserError where the test is not the one that decides the hypothesis's claim."""
    claim, least = hypothesis.claim, book.settings.smallest_effect
    assert claim is not None
    wanted = Prediction.of(claim.prediction(least), least)
    same = (
        str(subject.plan.plan) == str(book.laboratory.plan(claim.plan).plan)
        and str(subject.against.plan) == str(book.intact.plan)
        and (subject.measure, metric) == DEFAULT_METRIC
        and prediction.sign == wanted.sign
    )
    if same and wanted.sign:
        same = prediction.smallest_effect >= least
    elif same:
        same = -least <= prediction.low < 0 < prediction.high <= least
    if not same:
        raise UserError(
            f"this is not the test that decides the claim {claim}",
            where="preregister",
            remedy=f"register the plan {claim.plan} against the intact model on text, delta_loss, "
            f"{wanted} or stricter; or a hypothesis without a claim",
        )


def _waiting(book: Notebook, replaces: str) -> Registration | None:
    waiting = book.open_registration
    if waiting is not None and replaces != waiting.id:
        raise UserError(
            f"{waiting.id} is registered and not run: the level of the next test follows from its "
            "decision",
            where="preregister", remedy=f"run it, or give replaces: {waiting.id}",
        )  # fmt: skip
    if waiting is None and replaces:
        raise UserError(f"{replaces} is no open registration", where="replaces")
    return waiting


def _explored(book: Notebook, subject: Subject, metric: str) -> Effect | None:
    """The latest exploratory result on the same comparison."""
    for result in reversed(book.results.values()):
        if not result.registration and result.subject.key == subject.key:
            effect = result.effects.get(metric)
            return effect if effect is not None and effect.n >= 2 else None
    return None


def _power(book: Notebook, prediction: Prediction, effect: Effect, n: int) -> float:
    """Chance that a test of n units confirms, by the spread that was explored, for the effect
    expected (else explored): normal approximation."""
    expected = effect.estimate if prediction.expected is None else prediction.expected
    margin, alpha = prediction.margin(expected), book.slots.next_level()
    if margin <= 0 or alpha <= 0:
        return 0.0
    if effect.sd == 0:
        return 1.0
    one_side = power_of_mean(margin, effect.sd, n, alpha=2 * alpha)
    if prediction.sign:
        return one_side
    widest = max(prediction.margin(expected), prediction.high - prediction.low - margin)
    return max(0.0, one_side + power_of_mean(widest, effect.sd, n, alpha=2 * alpha) - 1)
