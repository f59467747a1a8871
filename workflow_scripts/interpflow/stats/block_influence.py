"""How much a block changes the residual stream, and whether that says what its loss costs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.permutation import DEFAULT_RESAMPLES, permutation_p
from interpflow.stats.quantiles import normal_quantile
from interpflow.stats.record import (
    NO_VARIATION,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.representation import cosine_distance
from interpflow.stats.signed_ranks import mid_ranks

FloatArray = NDArray[np.float64]
# Orders of up to this many blocks are all gone through: 9! = 362,880.
MAX_EXACT = 9
_BLOCK = 2_000_000


def block_influence(before: ArrayLike, after: ArrayLike) -> float:
    """1 − mean over tokens of cos(before, after) of states [token, d] before and after a block.

    ShortGPT (Men et al. 2024, https://arxiv.org/abs/2403.03853): the mean of the tokens' cosines,
    not the cosine of all states as one vector. 0 for a block that adds nothing; tokens without
    length are left out.
    """
    distances = cosine_distance(before, after)
    finite = distances[np.isfinite(distances)]
    return float(finite.mean()) if len(finite) else math.nan


def influence_against_damage(
    influence: ArrayLike,
    damage: ArrayLike,
    *,
    quantity: str = "rank correlation of influence and damage",
    level: float = 0.95,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    family: str = "",
) -> Estimate:
    """Spearman's ρ over blocks of `influence` [block] and the `damage` [block] of skipping them.

    p: two-sided, all orders of up to nine blocks, drawn orders of more. Interval: Fisher's z with
    the standard error of Bonett & Wright (2000), √((1 + ρ²/2)/(n − 3)), as wide as few blocks make
    it; none below four blocks, nor where the ranks agree entirely. Blocks without a finite value
    are dropped and counted. Raises UserError for misfitting lengths.
    """
    one, two = (np.asarray(part, dtype=np.float64).reshape(-1) for part in (influence, damage))
    if len(one) != len(two):
        raise UserError(f"influence of {len(one)} blocks and damage of {len(two)} do not fit")
    kept = np.isfinite(one) & np.isfinite(two)
    n = int(kept.sum())
    counts: dict[str, Any] = {"n_units": n, "n_dropped": len(one) - n}
    if n < 3:
        return undefined(quantity, TOO_FEW_CLUSTERS, ci_level=level, family=family, **counts)
    first, second = (_standardised(mid_ranks(part[kept])) for part in (one, two))
    if first is None or second is None:
        return undefined(quantity, NO_VARIATION, ci_level=level, family=family, **counts)
    rho = float(first @ second)
    exact = n <= MAX_EXACT
    draws = np.abs(_permuted(first, second, n_resamples, seed, exact=exact))
    low, high = _fisher(rho, n, level)
    return Estimate(
        quantity=quantity,
        estimate=rho,
        ci_low=low,
        ci_high=high,
        ci_level=level,
        p_value=permutation_p(abs(rho), draws, exact=exact),
        test="spearman_exact" if exact else "spearman_permutation",
        n_resamples=len(draws),
        seed=None if exact else seed,
        family=family,
        **counts,
    )


def _standardised(ranks: FloatArray) -> FloatArray | None:
    """Ranks [n] of mean 0 and length 1; None where they are all the same."""
    centred = ranks - ranks.mean()
    length = float(np.linalg.norm(centred))
    return centred / length if length > 0 else None


def _permuted(
    first: FloatArray, second: FloatArray, n_resamples: int, seed: int, *, exact: bool
) -> FloatArray:
    n = len(first)
    if exact:
        orders = np.fromiter(
            itertools.chain.from_iterable(itertools.permutations(range(n))),
            dtype=np.int8, count=math.factorial(n) * n,
        ).reshape(-1, n)  # fmt: skip
        return second[orders] @ first
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, n_resamples, max(1, _BLOCK // n)):
        size = min(max(1, _BLOCK // n), n_resamples - start)
        found.append(rng.permuted(np.broadcast_to(second, (size, n)), axis=1) @ first)
    return np.concatenate(found)


def _fisher(rho: float, n: int, level: float) -> tuple[float, float]:
    if n < 4 or abs(rho) >= 1 - 1e-12:
        return math.nan, math.nan
    reach = normal_quantile(0.5 + level / 2) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = math.atanh(rho)
    return math.tanh(centre - reach), math.tanh(centre + reach)
