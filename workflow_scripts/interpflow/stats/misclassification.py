"""A share judged by a fallible validator, corrected by gold labels: three designs of the gold.

Which one holds depends on how the items with gold labels were chosen, and on nothing else:
by their truth or from another set (`rogan_gladen`), by the validator's verdict
(`by_verdict`), or at random from the items themselves (`prediction_powered`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.quantiles import normal_quantile
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined

UNINFORMATIVE_VALIDATOR = "UNINFORMATIVE_VALIDATOR"
# Below it (sensitivity + specificity) the correction divides by almost nothing.
MIN_YOUDEN_SUM = 1.05
MONTE_CARLO_DRAWS = 10_000


def rogan_gladen(
    n_positive: float,
    n: float,
    *,
    true_positives: int,
    n_gold_positive: int,
    true_negatives: int,
    n_gold_negative: int,
    quantity: str = "corrected share",
    level: float = 0.95,
) -> Estimate:
    """Share of positives behind `n_positive` of `n` positive verdicts (Rogan & Gladen 1978).

    Sensitivity is `true_positives` of `n_gold_positive`, specificity `true_negatives` of
    `n_gold_negative`; both are taken to hold for the items judged (compare them by stratum). Of
    items in clusters, `n` is the effective number (`clustered_share`). The estimate is cut to
    [0, 1]; the interval is Lang & Reiczigel's (2014). Undefined without verdicts or gold of both
    kinds, or when the validator hardly tells them apart.
    """
    record = {"test": "rogan_gladen", "n_units": round(n), "ci_level": level}
    if n <= 0 or n_gold_positive == 0 or n_gold_negative == 0:
        return undefined(quantity, EMPTY_CELL, **record)
    sensitivity, specificity = true_positives / n_gold_positive, true_negatives / n_gold_negative
    if sensitivity + specificity <= MIN_YOUDEN_SUM:
        return undefined(quantity, UNINFORMATIVE_VALIDATOR, **record)
    apparent = n_positive / n
    estimate = (apparent + specificity - 1) / (sensitivity + specificity - 1)

    z = normal_quantile(0.5 + level / 2)
    n_verdicts = n + z**2
    share = (n_positive + z**2 / 2) / n_verdicts
    n_sensitivity, n_specificity = n_gold_positive + 2, n_gold_negative + 2
    se, sp = (true_positives + 1) / n_sensitivity, (true_negatives + 1) / n_specificity
    youden = se + sp - 1
    centre = (share + sp - 1) / youden
    var_se, var_sp = se * (1 - se) / n_sensitivity, sp * (1 - sp) / n_specificity
    shift = 2 * z**2 * (centre * var_se - (1 - centre) * var_sp)
    spread = share * (1 - share) / n_verdicts + centre**2 * var_se + (1 - centre) ** 2 * var_sp
    half = z * math.sqrt(spread) / youden
    return Estimate(
        quantity=quantity,
        estimate=min(max(estimate, 0.0), 1.0),
        ci_low=min(max(centre + shift - half, 0.0), 1.0),
        ci_high=max(min(centre + shift + half, 1.0), 0.0),
        **record,
    )


def wrong_positives(
    n_positive: float,
    n: float,
    *,
    true_positives: int,
    n_gold_positive: int,
    true_negatives: int,
    n_gold_negative: int,
    seed: int,
    quantity: str = "wrong among positive verdicts",
    level: float = 0.95,
) -> Estimate:
    """Share of the positive verdicts that are wrong, 1 − PPV = (1 − π)(1 − Sp) / apparent share.

    Arguments as in `rogan_gladen`, whose π it takes. The interval holds the middle of
    `MONTE_CARLO_DRAWS` draws of apparent share, sensitivity and specificity from their Beta
    posteriors under Jeffreys's prior. Undefined where `rogan_gladen` is, and without a positive
    verdict.
    """
    record = {"test": "wrong_positives", "n_units": round(n_positive), "ci_level": level,
              "seed": seed, "n_resamples": MONTE_CARLO_DRAWS}  # fmt: skip
    if n_positive == 0 or n_gold_positive == 0 or n_gold_negative == 0:
        return undefined(quantity, EMPTY_CELL, **record)
    se, sp = true_positives / n_gold_positive, true_negatives / n_gold_negative
    if se + sp <= MIN_YOUDEN_SUM:
        return undefined(quantity, UNINFORMATIVE_VALIDATOR, **record)

    def wrong(apparent: Any, se: Any, sp: Any) -> Any:
        truth = np.clip((apparent + sp - 1) / (se + sp - 1), 0, 1)
        return np.clip((1 - truth) * (1 - sp) / apparent, 0, 1)

    rng = np.random.default_rng(seed)

    def draws(successes: float, size: float) -> Any:
        return rng.beta(successes + 0.5, size - successes + 0.5, MONTE_CARLO_DRAWS)

    drawn = (draws(n_positive, n), draws(true_positives, n_gold_positive),
             draws(true_negatives, n_gold_negative))  # fmt: skip
    informative = drawn[1] + drawn[2] > MIN_YOUDEN_SUM
    spread = wrong(*(values[informative] for values in drawn))
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    estimate = float(wrong(n_positive / n, se, sp))
    return Estimate(quantity=quantity, estimate=estimate, ci_low=min(low, estimate),
                    ci_high=max(high, estimate), **record)  # fmt: skip


def by_verdict(
    n_positive: int,
    n: int,
    *,
    right_positives: int,
    n_gold_positives: int,
    right_negatives: int,
    n_gold_negatives: int,
    quantity: str = "corrected share",
    level: float = 0.95,
) -> Estimate:
    """Share of positives when gold labels were made for items drawn within each verdict.

    `right_positives` of `n_gold_positives` positive verdicts were right, `right_negatives` of
    `n_gold_negatives` negative ones. Both shares get one success and one failure more; normal
    interval by the delta method. Needs no assumption about other sets.
    """
    record = {"test": "by_verdict", "n_units": n, "ci_level": level}
    if n == 0 or n_gold_positives == 0 or n_gold_negatives == 0:
        return undefined(quantity, EMPTY_CELL, **record)
    apparent = n_positive / n
    n_ppv, n_npv = n_gold_positives + 2, n_gold_negatives + 2
    ppv, npv = (right_positives + 1) / n_ppv, (right_negatives + 1) / n_npv
    estimate = apparent * ppv + (1 - apparent) * (1 - npv)
    error = math.sqrt(
        apparent**2 * ppv * (1 - ppv) / n_ppv
        + (1 - apparent) ** 2 * npv * (1 - npv) / n_npv
        + (ppv + npv - 1) ** 2 * apparent * (1 - apparent) / n
    )
    return _normal(quantity, estimate, error, level, "by_verdict", n)


def prediction_powered(
    verdicts: ArrayLike,
    gold_verdicts: ArrayLike,
    gold: ArrayLike,
    *,
    quantity: str = "corrected share",
    level: float = 0.95,
) -> Estimate:
    """Mean truth of items judged (Angelopoulos et al. 2023), some of which have gold labels.

    `verdicts` [n] of the items without gold; `gold_verdicts` and `gold` [m] of items drawn at
    random from the same ones. Normal interval. Undefined with fewer than two of either.
    """
    judged = np.asarray(verdicts, dtype=np.float64)
    also, truth = (np.asarray(x, dtype=np.float64) for x in (gold_verdicts, gold))
    if also.shape != truth.shape:
        raise UserError(f"{also.size} verdicts for {truth.size} gold labels")
    n, m = judged.size, truth.size
    if n < 2 or m < 2:
        return undefined(quantity, EMPTY_CELL, test="prediction_powered", n_units=n + m,
                         ci_level=level)  # fmt: skip
    wrong = also - truth
    error = math.sqrt(judged.var() / n + wrong.var() / m)
    estimate = float(judged.mean() - wrong.mean())
    return _normal(quantity, estimate, error, level, "prediction_powered", n + m)


def weighted_sum(
    estimates: Sequence[Estimate], weights: ArrayLike, *, quantity: str, test: str = "mover"
) -> Estimate:
    """Σ weight · estimate of independent shares, with the interval of Zou & Donner (2008).

    Each half of the interval is the root of the summed squared halves of the parts, so that
    intervals that are not symmetric stay so. Undefined when a part with a weight above 0 is, with
    that part's flags.
    """
    given = np.asarray(weights, dtype=np.float64)
    parts = [(part, weight) for part, weight in zip(estimates, given) if weight > 0]
    record = {
        "test": test,
        "n_units": sum(part.n_units for part, _ in parts),
        "n_clusters": None
        if any(part.n_clusters is None for part, _ in parts)
        else sum(part.n_clusters or 0 for part, _ in parts),
        "n_dropped": sum(part.n_dropped for part in estimates),
        "ci_level": parts[0][0].ci_level if parts else 0.95,
    }
    missing = [flag for part, _ in parts if not part.defined for flag in part.flags]
    if not parts or missing:
        return undefined(quantity, *(missing or [EMPTY_CELL]), **record)
    centre = sum(weight * part.estimate for part, weight in parts)
    below = sum((weight * (part.estimate - part.ci_low)) ** 2 for part, weight in parts)
    above = sum((weight * (part.ci_high - part.estimate)) ** 2 for part, weight in parts)
    return Estimate(
        quantity=quantity,
        estimate=centre,
        ci_low=max(centre - math.sqrt(below), 0.0),
        ci_high=min(centre + math.sqrt(above), 1.0),
        **record,
    )


def _normal(
    quantity: str, estimate: float, error: float, level: float, test: str, n: int
) -> Estimate:
    half = normal_quantile(0.5 + level / 2) * error
    return Estimate(
        quantity=quantity,
        estimate=estimate,
        ci_low=max(estimate - half, 0.0),
        ci_high=min(estimate + half, 1.0),
        ci_level=level,
        test=test,
        n_units=n,
    )
