"""The study's answer as a sentence, by rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interpflow.stats.record import Estimate
from interpflow.studies.counting.slopes import DECISIVE_WINDOW, WindowTest

Answer = Literal["used", "decodable, not used", "neither", "undecided", "not run"]
# Share of the exchanged prefix that the answer must follow for a null result to mean anything: a
# model that hardly follows its input passes every equivalence test.
MIN_CEILING = 0.5
WINDOW_NAMES = {
    "far": "words well after k",
    "suffix": "words from k on",
    "window": "words around k",
    "site": "word k alone",
}


@dataclass(frozen=True)
class Decodability:
    """The best layer's probe, chosen on half of the lists and measured on the other."""

    layer: int
    score: Estimate
    control_mean: float
    control_max: float
    decodable: bool


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on; `probe` is None where the lists were too few for one."""

    tests: tuple[WindowTest, ...]
    ceiling: Estimate
    probe: Decodability | None
    bound: float

    @property
    def decisive(self) -> WindowTest | None:
        return next((test for test in self.tests if test.window == DECISIVE_WINDOW), None)

    @property
    def follows(self) -> bool:
        """Whether the answer follows an exchanged prefix; a perfect model has no interval."""
        low = self.ceiling.ci_low
        return (self.ceiling.estimate if math.isnan(low) else low) > MIN_CEILING


def answer(evidence: Evidence) -> Answer:
    """used: the decisive window's slope has its interval above the bound, survives Holm over the
    windows, and its control donors do nothing. Not used: that slope lies within the bound
    (equivalence test) while the answer does follow an exchanged prefix. Else undecided.
    """
    test = evidence.decisive
    if test is None:
        return "undecided"
    if test.passed(evidence.bound):
        return "used"
    if test.absent and evidence.follows and evidence.probe is not None:
        return "decodable, not used" if evidence.probe.decodable else "neither"
    return "undecided"


def sentence(name: str, found: Answer, evidence: Evidence) -> str:
    """One sentence with the numbers that it rests on."""
    test = evidence.decisive
    if test is None:
        return (
            f"Whether {name} uses a running count is undecided: too few prefix pairs reach beyond "
            "the words next to the change."
        )
    slope, read = _slope(test), _read(evidence.probe)
    if found == "used":
        return f"{name} holds a running count and uses it: {slope}; {read}."
    if found in ("decodable, not used", "neither"):
        opening = (
            f"{name} does not use a running count, though one is decodable"
            if found == "decodable, not used"
            else f"{name} neither uses nor holds a decodable running count"
        )
        near = _near(evidence.tests, evidence.bound)
        return f"{opening}: {slope}, which is within ±{evidence.bound:g}{near}; {read}."
    return (
        f"Whether {name} uses a running count is undecided ({_doubt(evidence, test)}): {slope}; "
        f"{read}."
    )


def _slope(test: WindowTest) -> str:
    return (
        f"patching the {WINDOW_NAMES[test.window]} after layer {test.layer} moves the answer by "
        f"{_number(test.slope.estimate)} of the running-count difference "
        f"({test.slope.ci_level:.0%} interval {_number(test.slope.ci_low)} to "
        f"{_number(test.slope.ci_high)}, {test.slope.n_clusters or test.slope.n_units} base lists, "
        f"Holm p = {_p(test.slope.p_adjusted)})"
    )


def _near(tests: Sequence[WindowTest], bound: float) -> str:
    """What the windows next to the change show, where they show something."""
    moved = [test for test in tests if test.window != DECISIVE_WINDOW and test.passed(bound)]
    if not moved:
        return ""
    test = moved[0]
    return (
        f", while the {WINDOW_NAMES[test.window]} move it by {_number(test.slope.estimate)}: "
        "they copy their neighbours, not a count"
    )


def _read(probe: Decodability | None) -> str:
    if probe is None:
        return "there were too few lists for a probe"
    verb = "reads it" if probe.decodable else "does not read it"
    return (
        f"a ridge probe {verb} after layer {probe.layer} (partial R² beyond position "
        f"{_number(probe.score.estimate)}, control word sets {_number(probe.control_mean)} on "
        f"average, at most {_number(probe.control_max)}; p = {_p(probe.score.p_value)})"
    )


def _doubt(evidence: Evidence, test: WindowTest) -> str:
    if not evidence.follows:
        return (
            "the answer follows even an exchanged prefix by only "
            f"{_number(evidence.ceiling.estimate)}"
        )
    power = f"these pairs detect {_number(test.smallest_detectable)} with 80 % power"
    if not test.controls_absent:
        return f"a control donor moves the answer, or too few pairs show that it does not; {power}"
    if test.absent:
        return "too few lists for a probe"
    return f"the slope is neither clearly above nor within the bound; {power}"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _p(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2g}"
