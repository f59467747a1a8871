"""Interchange intervention accuracy, on the pairs where the intervention should change anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from interpflow.stats.intervals import mean_interval
from interpflow.stats.paired import paired_difference
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined


@dataclass(frozen=True)
class InterchangeAccuracy:
    """`non_trivial` is the headline: pairs whose predicted output differs from the base output.

    `trivial_share` of the pairs would be right for a patch that does nothing; `no_op` is that
    patch's accuracy on all pairs; `when_right` restricts the non-trivial pairs to those where both
    unpatched runs were right (None when that was not given).
    """

    non_trivial: Estimate
    all_pairs: Estimate
    no_op: Estimate
    trivial_share: float
    n_trivial: int
    when_right: Estimate | None


def interchange_accuracy(
    patched: ArrayLike,
    counterfactual: ArrayLike,
    base: ArrayLike,
    *,
    both_right: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> InterchangeAccuracy:
    """Share of patched outputs equal to what the causal model predicts (Geiger et al. 2021).

    `patched` [n] output of the patched run (NaN: unparsed, wrong), `counterfactual` [n] prediction
    of the high-level model under the same intervention, `base` [n] output of the base input.
    `both_right` [n] marks pairs whose two unpatched runs were right.
    """
    outputs, predicted, unpatched = (
        np.asarray(x, dtype=np.float64) for x in (patched, counterfactual, base)
    )
    hits = (outputs == predicted).astype(np.float64)
    moved = predicted != unpatched
    labels = None if clusters is None else np.asarray(clusters)

    def share(values: np.ndarray, chosen: np.ndarray, quantity: str) -> Estimate:
        if not chosen.any():
            return undefined(quantity, EMPTY_CELL, ci_level=level)
        return mean_interval(
            values[chosen],
            clusters=None if labels is None else labels[chosen],
            quantity=quantity,
            level=level,
            is_proportion=True,
        )

    everything = np.ones(len(hits), dtype=bool)
    conditional = None
    if both_right is not None:
        right = np.asarray(both_right, dtype=bool) & moved
        conditional = share(hits, right, "IIA non-trivial, both runs right")
    return InterchangeAccuracy(
        non_trivial=share(hits, moved, "IIA non-trivial"),
        all_pairs=share(hits, everything, "IIA all pairs"),
        no_op=share((~moved).astype(np.float64), everything, "IIA of no intervention"),
        trivial_share=float(np.mean(~moved)) if len(moved) else float("nan"),
        n_trivial=int(np.sum(~moved)),
        when_right=conditional,
    )


def against_placebo(
    patched: ArrayLike,
    placebo: ArrayLike,
    counterfactual: ArrayLike,
    base: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    seed: int = 0,
) -> Estimate:
    """IIA of the real donor minus that of the placebo donor on the same non-trivial pairs.

    All [n]. Exact McNemar and Newcombe's interval; sign-flip by cluster when clusters are given.
    """
    outputs, control, predicted, unpatched = (
        np.asarray(x, dtype=np.float64) for x in (patched, placebo, counterfactual, base)
    )
    moved = predicted != unpatched
    return paired_difference(
        (outputs == predicted)[moved],
        (control == predicted)[moved],
        clusters=None if clusters is None else np.asarray(clusters)[moved],
        quantity="IIA real − placebo",
        seed=seed,
    )
