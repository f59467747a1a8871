"""One registered test: its units under the plan, and the verdict by rule; or a placebo of it."""

from __future__ import annotations

import numpy as np

from interpflow.agent.record.records import Registration, Result
from interpflow.agent.rules.effects import differences, effect_of
from interpflow.agent.work.notebook import Notebook
from interpflow.config.identity import derived_seed
from interpflow.stats.verdicts import judge


def trial_result(
    book: Notebook, registered: Registration, *, placebo: bool = False, allowed: int | None = None
) -> Result:
    """The result of a registration on its own units.

    placebo: plan and comparison change places in a random half of the units, so that the mean
    difference is 0 in truth while the spread is that of the data: a test without an effect that
    does not look like one. (The intact model against itself would show exact zeros.)
    allowed: tokens that may be run; None: what the budget leaves.
    """
    subject, metric = registered.subject, registered.metric
    measured = book.measured([subject], registered.units, confirmatory=True, allowed=allowed)
    plan, against = str(subject.plan.plan), str(subject.against.plan)
    values = differences(measured.rows[plan], measured.rows[against], registered.units, [metric])
    if placebo:
        draw = np.random.default_rng(derived_seed(book.seed, "placebo", registered.id))
        values[metric] = values[metric] * draw.choice([-1.0, 1.0], len(registered.units))
    judged = judge(
        values[metric], registered.prediction.judged_as(), registered.alpha, quantity=metric
    )
    runs = {*measured.runs.get(plan, ()), *measured.runs.get(against, ())}
    return Result(
        book.next_id("X"), subject, registered.units, values,
        {metric: effect_of(values[metric])}, tuple(sorted(runs)), registered.id, judged, placebo,
    )  # fmt: skip
