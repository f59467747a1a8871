"""Whether answers are read correctly from text, and whether two read-outs agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from interpflow.stats.error_size import kappa
from interpflow.stats.intervals import proportion, wilson
from interpflow.stats.paired import paired_difference
from interpflow.stats.record import READOUT_DISAGREES, Estimate, Gate

# Parse rate, and lower bound of the extractor's accuracy, that make the generated answers usable.
MIN_EXTRACTION = 0.97


@dataclass(frozen=True)
class ReadoutAgreement:
    """Generated answer against candidate-likelihood answer on the same items."""

    agreement: Estimate
    kappa: Estimate
    accuracy_difference: Estimate
    disagrees: bool


def extraction_gate(
    n_parsed: int, n_outputs: int, n_labelled_right: int, n_labelled: int
) -> tuple[Gate, Gate]:
    """Gates: parse rate ≥ 0.97, and extractor accuracy with Wilson lower bound ≥ 0.97.

    `n_labelled` raw outputs were read by hand; no error in fewer than 125 cannot pass.
    """
    rate = n_parsed / n_outputs if n_outputs else float("nan")
    bound = wilson(n_labelled_right, n_labelled)[0]
    read = "the generated answers can be used"
    unread = "only the candidate-likelihood read-out may continue"
    return (
        Gate(
            name="parse_rate",
            passed=rate >= MIN_EXTRACTION,
            value=rate,
            threshold=MIN_EXTRACTION,
            reason=read if rate >= MIN_EXTRACTION else unread,
        ),
        Gate(
            name="extractor_accuracy",
            passed=bound >= MIN_EXTRACTION,
            value=bound,
            threshold=MIN_EXTRACTION,
            reason=read if bound >= MIN_EXTRACTION else unread,
        ),
    )


def zero_failures_upper(n: int, level: float = 0.95) -> float:
    """One-sided upper bound of a rate never seen in `n` trials: 1 − (1 − level)^{1/n}."""
    return 1 - (1 - level) ** (1 / n) if n > 0 else float("nan")


def readout_agreement(
    generated: ArrayLike,
    likelihood: ArrayLike,
    truth: ArrayLike,
    *,
    categories: Sequence[float],
    clusters: ArrayLike | None = None,
    seed: int = 0,
) -> ReadoutAgreement:
    """Compare the answer generated with the candidate-likelihood argmax on the same items [n].

    Unparsed generated answers (NaN) agree with nothing and form a class of their own in κ. The
    read-outs disagree when the interval of their accuracy difference excludes 0.
    """
    first, second, true = (np.asarray(x, dtype=np.float64) for x in (generated, likelihood, truth))
    size = len(categories) + 1
    table = np.zeros((size, size))
    np.add.at(table, (_codes(first, categories), _codes(second, categories)), 1)
    difference = paired_difference(
        first == true,
        second == true,
        clusters=clusters,
        quantity="accuracy generated − likelihood",
        seed=seed,
    )
    disagrees = difference.ci_low > 0 or difference.ci_high < 0
    return ReadoutAgreement(
        agreement=proportion(
            int(np.sum(first == second)), len(first), quantity="read-out agreement"
        ),
        kappa=kappa(table, quantity="read-out kappa"),
        accuracy_difference=difference.with_flags(READOUT_DISAGREES) if disagrees else difference,
        disagrees=bool(disagrees),
    )


def _codes(values: np.ndarray, categories: Sequence[float]) -> np.ndarray:
    codes = np.full(len(values), len(categories))
    for index, category in enumerate(categories):
        codes[values == category] = index
    return codes
