"""Effects of patches scored against what is known of a planted model; arrays in, numbers out.

Effects are the metric of the patched run minus that of the unpatched one, [pair, site, position],
whatever computed them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kstest

from interpflow.errors import UserError
from interpflow.models.planted.pairs import PlantedPair
from interpflow.models.planted.truth import Role
from interpflow.stats.permutation import sign_flip
from interpflow.stats.ranking import RankingScore, auprc, auroc, tpr_at_fpr
from interpflow.stats.site_ranking import site_scores

FloatArray = NDArray[np.float64]

FALSE_POSITIVE_RATE = 0.05


def score_against_truth(effects: ArrayLike, roles: Sequence[Role]) -> TruthScore:
    """How well a ranking of sites by |mean effect| finds the needed ones.

    effects: [pair, site, position] (or [pair, site]); over positions the largest counts. roles: of
    the sites, in their order (`truth.roles_of`). Embeddings and unembedding are no sites here:
    counted in, they would flatter the ranking. Raises UserError when effects and roles do not fit,
    or when a site has no finite effect.
    """
    values = np.asarray(effects, dtype=np.float64)
    if values.ndim < 2 or values.shape[1] != len(roles):
        raise UserError(
            f"effects of shape {values.shape} do not fit {len(roles)} sites", where="effects"
        )
    scores = site_scores(values)
    of = {role: np.array([known == role for known in roles]) for role in _ROLES}
    return TruthScore(
        site_scores=scores,
        auroc=auroc(scores, of["needed"]),
        auprc=auprc(scores, of["needed"]),
        tpr=tpr_at_fpr(scores, of["needed"], FALSE_POSITIVE_RATE),
        weakest_needed=float(np.min(scores[of["needed"]], initial=np.inf)),
        strongest_irrelevant=float(np.max(scores[of["irrelevant"]], initial=0.0)),
        n_dead=int(of["dead"].sum()),
        n_dead_effects=int(np.count_nonzero(np.nan_to_num(values[:, of["dead"]]))),
    )


def score_directions(
    effects: Mapping[str, ArrayLike], roles: Sequence[Role]
) -> dict[str, TruthScore]:
    """`score_against_truth` of each direction ("denoise", "noise") apart: redundancy shows in one
    of them only, so a mean or maximum over both would hide it."""
    return {direction: score_against_truth(values, roles) for direction, values in effects.items()}


def effects_at_span(effects: ArrayLike, pairs: Sequence[PlantedPair], span: str) -> FloatArray:
    """Mean effect [pair, site] over the positions of each pair's span.

    Mechanisms act at places that differ from pair to pair: a mean over pairs at one absolute
    position dilutes them, a mean over one span does not. effects: [pair, site, position], each
    position patched alone. Raises UserError for an unknown span or a wrong number of pairs.
    """
    values = np.asarray(effects, dtype=np.float64)
    if values.ndim != 3 or len(values) != len(pairs):
        raise UserError(
            f"effects of shape {values.shape} do not fit {len(pairs)} pairs", where="effects"
        )
    rows = []
    for pair, row in zip(pairs, values):
        if span not in pair.spans:
            raise UserError(
                f"pairs have no span {span!r}", remedy=f"use one of {', '.join(pair.spans)}"
            )
        rows.append(row[:, list(pair.spans[span])].mean(axis=1))
    return np.array(rows)


def null_calibration(
    forward: ArrayLike,
    backward: ArrayLike,
    *,
    n_tests: int,
    pairs_per_test: int,
    seed: int,
) -> NullCalibration:
    """Whether the sign-flip test is honest where there is nothing to find.

    A null site is made of real effects: forward [pair] are those of patching from clean into
    corrupted, backward [pair] the other way round, of the same metric. Each test draws pairs
    without replacement and decides for each by a coin which prompt is called clean. Where clean
    and corrupted prompts have the same distribution, the effects are then symmetric about 0
    exactly, however large they are, and p must be uniform. Sites whose effects are all 0 are no
    use here: they give p = 1.
    Raises UserError for misfitting arrays or too few pairs.
    """
    sides = np.array([forward, backward], dtype=np.float64)
    if sides.ndim != 2 or not 2 <= pairs_per_test <= sides.shape[1]:
        raise UserError(
            f"{pairs_per_test} pairs a test cannot be drawn from effects of shape {sides.shape}",
            where="null calibration",
        )
    rng = np.random.default_rng(seed)
    p_values = []
    for _ in range(n_tests):
        drawn = rng.choice(sides.shape[1], size=pairs_per_test, replace=False)
        called_clean = rng.integers(0, 2, size=pairs_per_test)
        test = sign_flip(sides[called_clean, drawn], seed=int(rng.integers(2**31)))
        p_values.append(test.p_value)
    values = np.array(p_values)
    test = kstest(values, "uniform")
    return NullCalibration(
        p_values=values,
        ks_statistic=float(test.statistic),
        ks_p_value=float(test.pvalue),
        rejected=float(np.mean(values <= FALSE_POSITIVE_RATE)),
    )


_ROLES: tuple[Role, ...] = ("needed", "irrelevant", "dead")


@dataclass(frozen=True, eq=False)
class TruthScore:
    """Site scores [site] and how they rank; each `RankingScore` carries its base rate.

    tpr: share of the needed sites found at a false-positive rate of 5 %. weakest_needed,
    strongest_irrelevant: scores, ∞ and 0 without such sites. n_dead_effects: effects of dead sites
    that are not exactly 0; if there are any, something besides the patch changed the run.
    """

    site_scores: FloatArray
    auroc: RankingScore
    auprc: RankingScore
    tpr: RankingScore
    weakest_needed: float
    strongest_irrelevant: float
    n_dead: int
    n_dead_effects: int


@dataclass(frozen=True, eq=False)
class NullCalibration:
    """p-values [test] of null sites, their Kolmogorov–Smirnov test against the uniform
    distribution, and the share of them at or below 0.05."""

    p_values: FloatArray
    ks_statistic: float
    ks_p_value: float
    rejected: float
