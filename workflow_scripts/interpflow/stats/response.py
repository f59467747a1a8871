"""Answers against truth as distributions, and the gate that the answer depends on the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.multiplicity import adjust
from interpflow.stats.permutation import DEFAULT_RESAMPLES, permutation_p
from interpflow.stats.quantiles import chi2_upper
from interpflow.stats.record import EMPTY_CELL, NO_VARIATION, Estimate, Gate, undefined
from interpflow.stats.units import codes_of

FloatArray = NDArray[np.float64]

# Largest p of the input-sensitivity gate: below it the answers do depend on the question.
SENSITIVITY_ALPHA = 0.01


@dataclass(frozen=True)
class MarginalDivergence:
    """Distance of the answers' marginal from the truth's: `tv` in [0, 1], `jsd` nats in [0, ln 2].

    Both carry the paired swap p-value, Holm-adjusted over the two; intervals are not given because
    the plug-in distances are biased upwards.
    """

    tv: Estimate
    jsd: Estimate
    truth_shares: FloatArray
    answer_shares: FloatArray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class InputSensitivity:
    """Mutual information of answer and truth (nats): plug-in with permutation p, and corrected."""

    information: Estimate
    corrected: float
    share_of_entropy: float
    gate: Gate


def total_variation(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """½ Σ|P − Q| over the last axis of two distributions."""
    p, q = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return 0.5 * np.abs(p - q).sum(axis=-1)


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Jensen–Shannon divergence over the last axis in nats (not its root); NaN for empty input."""
    p, q = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    middle = (p + q) / 2

    def half(side: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(side > 0, side * np.log(side / middle), 0.0).sum(axis=-1) / 2

    empty = (p.sum(axis=-1) == 0) | (q.sum(axis=-1) == 0)
    return np.where(empty, np.nan, np.maximum(half(p) + half(q), 0.0))


def _shares(codes: NDArray[np.intp], size: int) -> FloatArray:
    return np.bincount(codes, minlength=size) / len(codes)


def _category_codes(values: FloatArray, categories: FloatArray) -> NDArray[np.intp]:
    """Index of each value among the categories; unparsed or unlisted values get the last code."""
    codes = np.full(len(values), len(categories))
    for index, category in enumerate(categories):
        codes[values == category] = index
    return codes


def marginal_divergence(
    truth: ArrayLike,
    answers: ArrayLike,
    *,
    categories: Sequence[float],
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    family: str = "answer distribution",
) -> MarginalDivergence:
    """Whether the answers are distributed like the truths; one swap decision per item.

    `truth`, `answers` [items] (NaN or unlisted: the cell "other"), `categories` the legal counts.
    Null: truth and answer of an item are exchangeable, so each pair is swapped with chance ½.
    Shuffling the pooled values instead ignores the pairing and hardly ever rejects.
    """
    listed = np.asarray(categories, dtype=np.float64)
    true = _category_codes(np.asarray(truth, dtype=np.float64), listed)
    given = _category_codes(np.asarray(answers, dtype=np.float64), listed)
    if true.shape != given.shape:
        raise UserError(f"truth {true.shape} and answers {given.shape} differ in shape")
    size, n = len(listed) + 1, len(true)
    labels = (*(f"{value:g}" for value in listed), "other")
    counts: dict[str, Any] = {
        "n_units": n,
        "n_resamples": n_resamples,
        "seed": seed,
        "test": "paired_swap",
    }
    if n == 0:
        empty = np.full(size, math.nan)
        missing = [undefined(name, EMPTY_CELL, **counts) for name in ("TV", "JSD")]
        return MarginalDivergence(missing[0], missing[1], empty, empty, labels)
    p, q = _shares(true, size), _shares(given, size)
    # An item with equal truth and answer is the same swapped or not: only the others matter.
    differ = np.flatnonzero(true != given)
    step = np.zeros((len(differ), size))
    step[np.arange(len(differ)), given[differ]] += 1
    step[np.arange(len(differ)), true[differ]] -= 1
    swapped = _swap_counts(step, n_resamples, np.random.default_rng(seed)) / n
    null_p, null_q = p + swapped, q - swapped
    found = [
        Estimate(
            quantity=name,
            estimate=float(distance(p, q)),
            p_value=permutation_p(float(distance(p, q)), distance(null_p, null_q)),
            **counts,
        )
        for name, distance in (("TV", total_variation), ("JSD", jensen_shannon))
    ]
    tv, jsd = adjust(found, method="holm", family=family)
    return MarginalDivergence(tv, jsd, p, q, labels)


def _swap_counts(step: FloatArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """Change of the truth's counts [draws, categories] when items are swapped at random."""
    block = max(1, 2_000_000 // max(len(step), 1))
    parts = [
        rng.integers(0, 2, size=(min(block, n_resamples - start), len(step)), dtype=np.int8)
        .astype(np.float64)
        .dot(step)
        for start in range(0, n_resamples, block)
    ]
    # Rounding away -0.0 and sums such as 2 − 2 keeps shares exact.
    return np.rint(np.concatenate(parts))


def _square_table(table: ArrayLike) -> FloatArray:
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise UserError(f"a square table of counts is needed, got shape {counts.shape}")
    return counts


def stuart_maxwell(table: ArrayLike) -> Estimate:
    """Asymptotic test that the two margins of a square table are equal (Stuart 1955)."""
    counts = _square_table(table)
    used = counts[np.ix_(*[(counts.sum(axis=0) + counts.sum(axis=1)) > 0] * 2)]
    difference = (used.sum(axis=1) - used.sum(axis=0))[:-1]
    covariance = np.diag(used.sum(axis=1) + used.sum(axis=0)) - used - used.T
    covariance = covariance[:-1, :-1]
    record: dict[str, Any] = {"n_units": int(counts.sum()), "test": "stuart_maxwell"}
    quantity = "equal marginals"
    if not covariance.size or np.linalg.matrix_rank(covariance) < len(covariance):
        return undefined(quantity, NO_VARIATION, **record)
    statistic = float(difference @ np.linalg.solve(covariance, difference))
    return Estimate(
        quantity=quantity,
        estimate=statistic,
        p_value=chi2_upper(statistic, len(difference)),
        **record,
    )


def bowker(table: ArrayLike) -> Estimate:
    """Asymptotic test that a square table is symmetric (Bowker 1948); empty pairs are left out."""
    counts = _square_table(table)
    upper = np.triu_indices(len(counts), 1)
    total, difference = (counts + counts.T)[upper], (counts - counts.T)[upper]
    used = total > 0
    record: dict[str, Any] = {"n_units": int(counts.sum()), "test": "bowker"}
    if not used.any():
        return undefined("symmetry", NO_VARIATION, **record)
    statistic = float((difference[used] ** 2 / total[used]).sum())
    p_value = chi2_upper(statistic, int(used.sum()))
    return Estimate(quantity="symmetry", estimate=statistic, p_value=p_value, **record)


def information_of_table(table: ArrayLike) -> float:
    """Plug-in mutual information (nats) of a table of counts; 0 for an empty table."""
    counts = np.asarray(table, dtype=np.float64)
    total = counts.sum()
    if total == 0:
        return 0.0
    joint = counts / total
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    used = joint > 0
    return max(0.0, float((joint[used] * np.log(joint[used] / independent[used])).sum()))


def _entropy(counts: FloatArray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def permuted_information(
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    strata: NDArray[np.intp],
    *,
    n_resamples: int,
    seed: int,
) -> FloatArray:
    """Plug-in information [draws] after permuting `second` within strata; all codes [n] from 0."""
    n_first, n_second = int(first.max()) + 1, int(second.max()) + 1
    order = np.argsort(strata, kind="stable")
    a, b, level = first[order], second[order], strata[order].astype(np.float64)
    margins = _entropy(np.bincount(a).astype(float)) + _entropy(np.bincount(b).astype(float))
    rng = np.random.default_rng(seed)
    draws = np.empty(n_resamples)
    for index in range(n_resamples):
        shuffled = b[np.argsort(level + rng.random(len(level)))]
        joint = np.bincount(a * n_second + shuffled, minlength=n_first * n_second)
        draws[index] = margins - _entropy(joint.astype(np.float64))
    return np.maximum(draws, 0.0)


def input_sensitivity(
    truth: ArrayLike,
    answers: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    alpha: float = SENSITIVITY_ALPHA,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
) -> InputSensitivity:
    """Gate: do the answers carry any information about the truth, at given nuisance strata?

    `truth`, `answers` [items], unparsed answers (NaN) being one class of their own; `strata`
    labels [items] (length × category) within which answers are permuted. One item per independent
    unit: with several prompts per base list, pass one of them. A model that always answers the
    same has I = 0 and p = 1.
    """
    given = np.asarray(answers, dtype=np.float64)
    labels = np.where(np.isfinite(given), given, math.inf)
    n = len(given)
    quantity = "I(answer; truth)"
    record: dict[str, Any] = {
        "n_units": n,
        "n_resamples": n_resamples,
        "seed": seed,
        "test": "permutation",
    }
    if n == 0:
        gate = _sensitivity_gate(math.nan, alpha)
        return InputSensitivity(undefined(quantity, EMPTY_CELL, **record), math.nan, math.nan, gate)
    true_codes, n_true = codes_of(np.asarray(truth), n)
    given_codes, n_given = codes_of(labels, n)
    strata_codes, _ = codes_of(np.zeros(n) if strata is None else strata, n)
    table = np.zeros((n_true, n_given))
    np.add.at(table, (true_codes, given_codes), 1)
    observed = information_of_table(table)
    if n_true < 2 or n_given < 2:
        p_value, flags = 1.0, (NO_VARIATION,)
    else:
        draws = permuted_information(
            true_codes, given_codes, strata_codes, n_resamples=n_resamples, seed=seed
        )
        p_value, flags = permutation_p(observed, draws), ()
    entropy = _entropy(table.sum(axis=1))
    return InputSensitivity(
        information=Estimate(
            quantity=quantity, estimate=observed, p_value=p_value, flags=flags, **record
        ),
        corrected=observed - (n_true - 1) * (n_given - 1) / (2 * n),
        share_of_entropy=observed / entropy if entropy > 0 else math.nan,
        gate=_sensitivity_gate(p_value, alpha),
    )


def _sensitivity_gate(p_value: float, alpha: float) -> Gate:
    passed = p_value <= alpha
    reason = (
        "the answers depend on the question"
        if passed
        else "the answers do not depend on the question: there is no effect to explain"
    )
    return Gate(
        name="input_sensitivity", passed=passed, value=p_value, threshold=alpha, reason=reason
    )
