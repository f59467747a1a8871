"""Does the state that holds the running count move the answer? Slopes on prefix pairs."""

# Indexing a DataFrame has no static type: the columns are those of tables/schemas.py.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from interpflow.config.counting import CountingMediation
from interpflow.config.identity import derived_seed
from interpflow.stats.multiplicity import adjust
from interpflow.stats.permutation import sign_flip
from interpflow.stats.power import detectable_slope
from interpflow.stats.record import Estimate
from interpflow.stats.slope import (
    shifted_accuracy,
    slope_contrast,
    slope_equivalence,
    slope_through_origin,
)

# Windows on which the running count is tested, in the order in which they are reported. `far`
# leaves the words next to k out: a state that only copies the last few words moves the other
# windows as well, and holds no count. `prefix` is no test of a stored count: at the embedding it
# is the donor's own text, and its slope there is the ceiling of all the others.
TESTED_WINDOWS = ("far", "suffix", "window", "site")
DECISIVE_WINDOW = "far"
MIN_FAMILIES = 8  # base lists without which a split supports no interval
CONTROL_DONORS = ("control", "random")
FAMILY = "running count used"
SIGNIFICANT = 0.05
EXPLORE, CONFIRM = ("discover", "develop"), ("confirm",)
# Agreement of a full-prefix patch at the embedding with the donor's own run, in counts.
HYBRID_TOLERANCE = 1e-3


@dataclass(frozen=True)
class WindowTest:
    """One window, its layer chosen on the exploration splits, tested on the confirmation split."""

    window: str
    layer: int
    slope: Estimate
    controls: dict[str, Estimate]
    controls_absent: bool
    absent: bool
    shifted: Estimate
    smallest_detectable: float

    def passed(self, bound: float) -> bool:
        """Slope and interval above `bound`, after Holm, while the control donors do nothing."""
        return (
            self.slope.ci_low > bound
            and self.slope.p_adjusted < SIGNIFICANT
            and self.controls_absent
        )


def slope_rows(
    name: str, table: pd.DataFrame, settings: CountingMediation
) -> Iterator[dict[str, Any]]:
    """Slope of Δ expected count on the running-count difference for every split, window, layer
    and donor. A control donor's slope is on its pair's difference, which the donor does not have.
    """
    splits = {"explore": EXPLORE, "confirm": CONFIRM}
    keys = ["slot", "donor", "component", "layer", "head"]
    for split, names in splits.items():
        chosen = table[table["split"].isin(names)]
        for (window, donor, component, layer, head), rows in chosen.groupby(keys, sort=True):
            slope = slope_through_origin(
                rows["delta"], _moved(rows), clusters=rows["family_id"].to_numpy(),
                quantity="running-count slope", level=settings.level,
            )  # fmt: skip
            yield {
                "model": name,
                "split": split,
                "window": window,
                "donor": donor,
                "component": component,
                "layer": int(layer),
                "head": int(head),
                **slope.to_row(),
            }


def assess_windows(
    name: str, table: pd.DataFrame, settings: CountingMediation, seed: int
) -> list[WindowTest]:
    """Test each window at the layer that the exploration splits chose; Holm over windows.

    Windows with fewer than `MIN_FAMILIES` base lists in either part are left out.
    """
    residual = table[table["component"] == "resid_post"]
    explore = residual[residual["split"].isin(EXPLORE)]
    confirm = residual[residual["split"].isin(CONFIRM)]
    tests = []
    for window in TESTED_WINDOWS:
        explored = explore[explore["slot"] == window]
        if min(_n_families(explored), _n_families(confirm[confirm["slot"] == window])) < (
            MIN_FAMILIES
        ):
            continue
        layer = _best_layer(explored)
        at_layer = confirm[(confirm["slot"] == window) & (confirm["layer"] == layer)]
        tests.append(_test_window(name, window, layer, at_layer, settings, seed))
    adjusted = adjust([test.slope for test in tests], method="holm", family=FAMILY)
    return [replace(test, slope=slope) for test, slope in zip(tests, adjusted)]


def ceiling(table: pd.DataFrame, settings: CountingMediation) -> Estimate:
    """How far the answer follows a list whose whole prefix is exchanged: no window can do more."""
    rows = table[
        (table["slot"] == "prefix")
        & (table["component"] == "embed")
        & (table["donor"] == "real")
        & table["split"].isin(CONFIRM)
    ]
    return slope_through_origin(
        rows["delta"], _moved(rows), clusters=rows["family_id"].to_numpy(),
        quantity="slope of the exchanged text (ceiling)", level=settings.level,
    )  # fmt: skip


def hybrid_check(table: pd.DataFrame) -> dict[str, Any]:
    """Patching all words before k at the embedding must be the donor's own run."""
    rows = table[
        (table["slot"] == "prefix") & (table["component"] == "embed") & (table["donor"] == "real")
    ]
    worst = float(np.abs(rows["expected_count"] - rows["donor_expected_count"]).max())
    return {
        "name": "prefix at the embedding equals the donor's run",
        "value": worst,
        "threshold": HYBRID_TOLERANCE,
        "passed": bool(worst <= HYBRID_TOLERANCE),
    }


def _moved(rows: pd.DataFrame) -> np.ndarray:
    return (rows["expected_count"] - rows["base_expected_count"]).to_numpy()


def _n_families(rows: pd.DataFrame) -> int:
    return len(set(rows["family_id"]))


def _best_layer(rows: pd.DataFrame) -> int:
    real = rows[rows["donor"] == "real"]
    slopes = {
        layer: slope_through_origin(at["delta"], _moved(at)).estimate
        for layer, at in real.groupby("layer")
    }
    return int(max(slopes, key=lambda layer: (slopes[layer], -layer)))


def _test_window(
    name: str,
    window: str,
    layer: int,
    rows: pd.DataFrame,
    settings: CountingMediation,
    seed: int,
) -> WindowTest:
    by_donor = {
        donor: found.set_index(["pair_id", "direction"]).sort_index()
        for donor, found in rows.groupby("donor")
    }
    real, placebo = by_donor["real"], by_donor["control"]
    placebo = placebo.loc[real.index]
    families = real["family_id"].to_numpy()
    slope = slope_through_origin(
        real["delta"], _moved(real), clusters=families,
        quantity=f"running-count slope ({window})", level=settings.level,
    )  # fmt: skip
    contrast = sign_flip(
        slope_contrast(real["delta"], _moved(real), _moved(placebo)),
        clusters=families,
        n_resamples=settings.n_permutations,
        seed=derived_seed(seed, name, window, "slope"),
    )
    slope = replace(
        slope,
        p_value=contrast.p_value,
        test=f"{contrast.test} against control donor",
        n_resamples=contrast.n_resamples,
        seed=contrast.seed,
    )
    bound = settings.smallest_effect
    controls, all_absent = {}, True
    for donor in CONTROL_DONORS:
        found = by_donor[donor]
        zero = slope_equivalence(
            found["delta"], _moved(found), low=-bound, high=bound,
            clusters=found["family_id"].to_numpy(), quantity=f"{donor} donor slope",
        )  # fmt: skip
        controls[donor] = zero.estimate
        all_absent &= zero.equivalent
    absent = slope_equivalence(
        real["delta"], _moved(real), low=-bound, high=bound, clusters=families
    ).equivalent
    doses = real["delta"].to_numpy(dtype=float)
    spread = float(np.std(_moved(real) - slope.estimate * doses, ddof=1))
    return WindowTest(
        window=window,
        layer=layer,
        slope=slope,
        controls=controls,
        controls_absent=all_absent,
        absent=absent,
        shifted=shifted_accuracy(
            real["argmax_candidate"], real["base_argmax_candidate"], real["delta"],
            clusters=families, level=settings.level,
        ),
        smallest_detectable=detectable_slope(
            spread, float(np.mean(doses**2)), len(set(families))
        ),
    )  # fmt: skip
