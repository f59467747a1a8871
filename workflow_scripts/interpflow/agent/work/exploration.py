"""Actions on the exploration pool: nothing here can confirm anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interpflow.agent.record.records import Result, Subject
from interpflow.agent.rules.actions import MOST_UNITS
from interpflow.agent.rules.effects import differences, effect_of
from interpflow.agent.work.notebook import Notebook
from interpflow.errors import UserError


def explore(book: Notebook, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Plans against the intact model on the first units of the pool."""
    subjects = [book.subject({**arguments, "plan": plan}) for plan in arguments["plans"]]
    first = subjects[0]
    units = book.pools.explore(first.measure, first.task, arguments.get("n", MOST_UNITS))
    measured = book.measured(subjects, units, exploring=True)
    shown = []
    for subject in subjects:
        plan, against = str(subject.plan.plan), str(subject.against.plan)
        values = differences(
            measured.rows[plan], measured.rows[against], units, book.metrics(subject.measure)
        )
        runs = (*measured.runs.get(plan, ()), *measured.runs.get(against, ()))
        shown.append(_entered(book, subject, units, values, runs).to_dict())
    return {"results": shown, "cached": measured.cached}


def compare(book: Notebook, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """First result minus second, paired by the units that both hold."""
    first, second = (book.results.get(id) for id in arguments["results"])
    if first is None or second is None:
        raise UserError("one of the two is no result", where="compare", remedy="list results")
    same = (first.subject.measure, first.subject.task, str(first.subject.against.plan))
    if same != (second.subject.measure, second.subject.task, str(second.subject.against.plan)):
        raise UserError(
            "the two results differ in measure, task or what they are compared with",
            where="compare",
        )
    shared = set(first.units) & set(second.units)
    units = tuple(unit for unit in first.units if unit in shared)
    if not units:
        raise UserError(
            "the two results have no unit in common",
            where="compare",
            remedy="tests read units of their own: compare explored results",
        )
    a = [first.units.index(unit) for unit in units]
    b = [second.units.index(unit) for unit in units]
    values = {
        metric: np.asarray(first.values[metric][a] - second.values[metric][b])
        for metric in first.values
        if metric in second.values
    }
    subject = Subject(
        first.subject.plan, second.subject.plan, first.subject.measure, first.subject.task
    )
    result = _entered(book, subject, units, values, tuple({*first.runs, *second.runs}))
    return {"result": result.to_dict()}


def _entered(
    book: Notebook, subject: Subject, units: tuple[str, ...], values: dict[str, Any],
    runs: tuple[str, ...],
) -> Result:  # fmt: skip
    effects = {metric: effect_of(each) for metric, each in values.items()}
    result = Result(book.next_id("X"), subject, units, values, effects, tuple(sorted(set(runs))))
    book.results[result.id] = result
    return result
