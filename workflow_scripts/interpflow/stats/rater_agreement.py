"""Do two raters agree? The whole table, raw agreement, κ and AC1, since κ collapses under skew."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.error_size import kappa
from interpflow.stats.intervals import proportion
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined


@dataclass(frozen=True)
class RaterAgreement:
    """`table` [classes, classes] counts items by the first rater's class and the second's."""

    classes: tuple[str, ...]
    table: np.ndarray
    agreement: Estimate
    kappa: Estimate
    ac1: Estimate


def rater_agreement(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    classes: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> RaterAgreement:
    """Agreement of two raters on the same items, joined by position.

    `classes` null: those that occur. Raises UserError for unequal lengths or an unknown class.
    """
    if len(first) != len(second):
        raise UserError(f"{len(first)} ratings beside {len(second)}: every item needs both")
    known = list(classes) if classes is not None else sorted({*first, *second}, key=str)
    place = {value: i for i, value in enumerate(known)}
    unknown = next((x for x in (*first, *second) if x not in place), None)
    if unknown is not None:
        raise UserError(f"a rating {unknown!r} that is none of the classes")
    table = np.zeros((len(known), len(known)), dtype=np.int64)
    for a, b in zip(first, second):
        table[place[a], place[b]] += 1
    return RaterAgreement(
        classes=tuple(str(value) for value in known),
        table=table,
        agreement=proportion(int(np.trace(table)), int(table.sum()), quantity="agreement",
                             level=level),
        kappa=kappa(table, level=level),
        ac1=gwet_ac1(table),
    )  # fmt: skip


def gwet_ac1(table: ArrayLike, *, quantity: str = "AC1") -> Estimate:
    """Gwet's (2008) AC1 of a square table of counts; stays meaningful when one class is rare.

    No interval. 1 where a single class exists and both raters use it.
    """
    counts = np.asarray(table, dtype=np.float64)
    total = counts.sum()
    if total == 0:
        return undefined(quantity, EMPTY_CELL, test="ac1")
    shares = counts / total
    observed = float(np.trace(shares))
    margins = (shares.sum(axis=0) + shares.sum(axis=1)) / 2
    by_chance = float((margins * (1 - margins)).sum()) / max(len(counts) - 1, 1)
    return Estimate(
        quantity=quantity,
        estimate=(observed - by_chance) / (1 - by_chance),
        test="ac1",
        n_units=int(total),
    )
