"""Correction of a validator's verdicts: the known answers of the specification, and coverage."""

from __future__ import annotations

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.misclassification import (
    UNINFORMATIVE_VALIDATOR,
    by_verdict,
    prediction_powered,
    rogan_gladen,
)


def corrected(n_positive: int, n: int, se: tuple[int, int], sp: tuple[int, int]):
    return rogan_gladen(
        n_positive, n, true_positives=se[0], n_gold_positive=se[1], true_negatives=sp[0],
        n_gold_negative=sp[1],
    )  # fmt: skip


def test_rogan_gladen_known_answer() -> None:
    found = corrected(880, 1000, (95, 100), (90, 100))
    assert found.estimate == pytest.approx(0.9176471, abs=1e-7)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.871714, 0.984596), abs=1e-6)


def test_by_verdict_known_answer() -> None:
    found = by_verdict(
        880, 1000, right_positives=93, n_gold_positives=100, right_negatives=86,
        n_gold_negatives=100,
    )  # fmt: skip
    assert found.estimate == pytest.approx(0.8286275, abs=1e-7)
    assert found.half_width / 1.959964 == pytest.approx(0.0250961, abs=1e-7)


def test_prediction_powered_known_answer() -> None:
    verdicts = np.repeat([1, 0], [880, 120])
    pairs = [(1, 1)] * 80 + [(1, 0)] * 6 + [(0, 1)] * 2 + [(0, 0)] * 12
    found = prediction_powered(verdicts, [f for f, _ in pairs], [y for _, y in pairs])
    assert found.estimate == pytest.approx(0.84, abs=1e-12)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.78154, 0.89846), abs=1e-5)


def test_rogan_gladen_covers_the_truth_where_the_raw_share_does_not() -> None:
    rng = np.random.default_rng(0)
    share, se, sp, n, m, rounds = 0.9, 0.95, 0.9, 1000, 100, 1500
    apparent = share * se + (1 - share) * (1 - sp)
    covered = raw = 0
    for _ in range(rounds):
        x, tp, tn = rng.binomial(n, apparent), rng.binomial(m, se), rng.binomial(m, sp)
        found = corrected(int(x), n, (int(tp), m), (int(tn), m))
        covered += found.ci_low <= share <= found.ci_high
        half = 1.96 * (x / n * (1 - x / n) / n) ** 0.5
        raw += abs(x / n - share) <= half
    assert 0.94 <= covered / rounds <= 0.98
    assert raw / rounds < 0.2


def test_a_validator_that_guesses_corrects_nothing() -> None:
    found = corrected(500, 1000, (52, 100), (50, 100))
    assert not found.defined
    assert UNINFORMATIVE_VALIDATOR in found.flags


def test_without_gold_of_both_kinds_nothing_is_corrected() -> None:
    assert not corrected(5, 10, (0, 0), (9, 10)).defined
    assert not corrected(0, 0, (9, 10), (9, 10)).defined


def test_gold_must_pair_up() -> None:
    with pytest.raises(UserError, match="2 verdicts for 1 gold"):
        prediction_powered([1, 0], [1, 0], [1])
