"""How good an attribution is, measured: exact effects of its top and of a random sample of the
rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpflow.engine.circuits.attribution import StateScores
from interpflow.engine.circuits.edge_attribution import EdgeScores
from interpflow.engine.circuits.edges import Edge
from interpflow.engine.circuits.pair_batches import Prompts
from interpflow.engine.circuits.patch_sets import PatchCell, patch_sets
from interpflow.engine.circuits.path_patching import patch_edges
from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.stats.attribution_audit import AttributionAudit, audit_attribution


def verify_states(
    scores: StateScores,
    model: Model,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    *,
    k: int,
    n_random: int,
    seed: int,
    by_position: bool = True,
    name: str | None = None,
) -> Verification:
    """Patch exactly the k states with the largest |mean estimate| over pairs and `n_random` others.

    base_ids, donor_ids, metric, name: those the scores were made with. by_position=False: states
    at all positions together.
    """
    cells, estimates = scores.cells(by_position=by_position)

    def exact(chosen: Sequence[PatchCell]) -> np.ndarray:
        return patch_sets(
            model, base_ids, donor_ids, metric, [[c] for c in chosen], name=name
        ).effects

    return _verify(cells, estimates, exact, k, n_random, seed)


def verify_edges(
    scores: EdgeScores,
    model: Model,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    *,
    k: int,
    n_random: int,
    seed: int,
    name: str | None = None,
) -> Verification:
    """Patch exactly the k edges with the largest |mean score| over pairs and `n_random` others."""
    rows = np.argwhere(scores.edges.exists)
    estimates = scores.scores[:, rows[:, 0], rows[:, 1]].T
    edges = scores.edges.edges()

    def exact(chosen: Sequence[Edge]) -> np.ndarray:
        return patch_edges(
            model, base_ids, donor_ids, metric, [[e] for e in chosen], name=name
        ).effects

    return _verify(edges, estimates, exact, k, n_random, seed)


def _verify(
    items: Sequence[Any],
    estimates: np.ndarray,
    exact: Callable[[Sequence[Any]], np.ndarray],
    k: int,
    n_random: int,
    seed: int,
) -> Verification:
    if k < 1 or n_random < 0:
        raise UserError(f"k = {k}, n_random = {n_random}", remedy="verify at least one item")
    order = np.argsort(-np.abs(_means(estimates)), kind="stable")
    top, rest = order[:k], order[k:]
    drawn = np.random.default_rng(seed).choice(rest, size=min(n_random, len(rest)), replace=False)
    chosen = np.concatenate([top, np.sort(drawn)]).astype(int)
    picked = tuple(items[i] for i in chosen)
    is_top = np.arange(len(chosen)) < len(top)
    return Verification(picked, is_top, estimates[chosen], exact(picked))


def _means(values: np.ndarray) -> np.ndarray:
    """Mean over pairs of [item, pair]; pairs too short for an item do not count."""
    there = np.isfinite(values)
    return np.where(there, values, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


@dataclass(frozen=True, eq=False)
class Verification:
    """Estimates and exact effects of items (cells or edges), float64 [item, pair]; is_top: bool
    [item], false for the random sample of the rest."""

    items: tuple[Any, ...]
    is_top: np.ndarray
    estimates: np.ndarray
    exact: np.ndarray

    def summary(self) -> VerificationSummary:
        """How estimates and exact effects, averaged over pairs, agree."""
        from scipy.stats import spearmanr

        rough, true = _means(self.estimates), _means(self.exact)
        n_top, n_random = int(self.is_top.sum()), int((~self.is_top).sum())
        largest = np.argsort(-np.abs(true), kind="stable")[:n_top]
        missed = int((~self.is_top[largest]).sum())
        varied = len(true) > 2 and np.ptp(rough) > 0 and np.ptp(true) > 0
        return VerificationSummary(
            n_top=n_top,
            n_random=n_random,
            pearson=float(np.corrcoef(rough, true)[0, 1]) if varied else float("nan"),
            spearman=float(np.asarray(spearmanr(rough, true)[0])) if varied else float("nan"),
            max_abs_error=float(np.abs(rough - true).max()),
            median_abs_error=float(np.median(np.abs(rough - true))),
            sign_agreement=float(np.mean(np.sign(rough) == np.sign(true))),
            missed_share=missed / n_random if n_random else float("nan"),
        )

    def audit(self, *, smallest_effect: float) -> AttributionAudit:
        """Whether the top is a sound screen for effects above `smallest_effect`."""
        return audit_attribution(
            _means(self.estimates), _means(self.exact), self.is_top, smallest_effect=smallest_effect
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """One row per item: estimate and exact effect, averaged over pairs."""
        rough, true = _means(self.estimates), _means(self.exact)
        return [
            {
                "item": str(item),
                "sample": "top" if is_top else "random",
                "estimate": float(estimate),
                "exact": float(exact),
                "error": float(estimate - exact),
            }
            for item, is_top, estimate, exact in zip(self.items, self.is_top, rough, true)
        ]


@dataclass(frozen=True)
class VerificationSummary:
    """Agreement over all verified items (correlations profit from the top being chosen as large);
    `missed_share`: share of the random sample that belongs, by exact effect, to the n_top largest
    of all verified items."""

    n_top: int
    n_random: int
    pearson: float
    spearman: float
    max_abs_error: float
    median_abs_error: float
    sign_agreement: float
    missed_share: float
