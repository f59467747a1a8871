"""The study's answer as a sentence, by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interpflow.stats.record import Estimate
from interpflow.studies.counting.slopes import WindowTest

Answer = Literal["used", "decodable, not used", "neither", "undecided", "not run"]


@dataclass(frozen=True)
class Decodability:
    """The best layer's probe, chosen on half of the lists and measured on the other."""

    layer: int
    score: Estimate
    control_mean: float
    control_max: float
    decodable: bool


def answer(tests: Sequence[WindowTest], probe: Decodability, bound: float) -> Answer:
    """used: a window's slope has its interval above `bound`, survives Holm, and its control
    donors do nothing. Not used: every window's slope lies within ±`bound` (equivalence test).
    Between the two the data do not decide.
    """
    if any(
        test.slope.ci_low > bound and test.slope.p_adjusted < 0.05 and test.controls_absent
        for test in tests
    ):
        return "used"
    if all(test.absent for test in tests):
        return "decodable, not used" if probe.decodable else "neither"
    return "undecided"


def sentence(
    name: str, found: Answer, tests: Sequence[WindowTest], probe: Decodability, bound: float
) -> str:
    """One sentence with the numbers that it rests on."""
    best = max(tests, key=lambda test: test.slope.estimate)
    slope = (
        f"patching the {best.window} after layer {best.layer} moves the answer by "
        f"{_number(best.slope.estimate)} of the running-count difference "
        f"(95 % interval {_number(best.slope.ci_low)} to {_number(best.slope.ci_high)}, "
        f"{best.slope.n_clusters or best.slope.n_units} pairs, "
        f"Holm p = {_p(best.slope.p_adjusted)})"
    )
    read = (
        f"a ridge probe reads it after layer {probe.layer} (partial R² beyond position "
        f"{_number(probe.score.estimate)}, control word sets {_number(probe.control_mean)} on "
        f"average, at most {_number(probe.control_max)}; p = {_p(probe.score.p_value)})"
    )
    if found == "used":
        return f"{name} holds a running count and uses it: {slope}; {read}."
    if found == "decodable, not used":
        return (
            f"{name} does not use a running count, though one is decodable: {slope}, and every "
            f"window's slope lies within ±{bound:g}; {read}."
        )
    if found == "neither":
        return (
            f"{name} neither uses nor holds a decodable running count: {slope}, and every window's "
            f"slope lies within ±{bound:g}; {read.replace('reads it', 'fails')}."
        )
    detectable = max(test.smallest_detectable for test in tests)
    return (
        f"Whether {name} uses a running count is undecided: {slope}; the smallest slope that these "
        f"pairs detect with 80 % power is {_number(detectable)}; {read}."
    )


def _number(value: float) -> str:
    return "undefined" if value != value else f"{value:.3f}"


def _p(value: float) -> str:
    return "undefined" if value != value else f"{value:.2g}"
