"""Agreement of two raters: the known answers of the specification."""

from __future__ import annotations

import pytest

from interpflow.errors import UserError
from interpflow.stats.rater_agreement import gwet_ac1, rater_agreement


@pytest.mark.parametrize(
    ("table", "expected"),
    [([[90, 5], [5, 0]], 0.8895028), ([[50, 0], [0, 0]], 1.0)],
)
def test_ac1_known_answers(table: list[list[int]], expected: float) -> None:
    assert gwet_ac1(table).estimate == pytest.approx(expected, abs=1e-7)


def test_ratings_become_a_table() -> None:
    first = ["yes"] * 50 + ["no"] * 50
    second = ["yes"] * 45 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 40
    found = rater_agreement(first, second, classes=["yes", "no"])
    assert found.table.tolist() == [[45, 5], [10, 40]]
    assert found.kappa.estimate == pytest.approx(0.7)
    assert found.agreement.estimate == pytest.approx(0.85)
    assert found.kappa.ci_low < 0.7 < found.kappa.ci_high


def test_skew_that_breaks_kappa_leaves_ac1() -> None:
    first, second = ["yes"] * 49 + ["no"], ["yes"] * 50
    found = rater_agreement(first, second)
    assert found.kappa.estimate == pytest.approx(0)
    assert found.ac1.estimate > 0.97


def test_items_need_both_ratings() -> None:
    with pytest.raises(UserError, match="every item needs both"):
        rater_agreement(["a"], [])
    with pytest.raises(UserError, match="none of the classes"):
        rater_agreement(["a"], ["b"], classes=["a"])
