"""Total, direct and indirect effects from four runs per pair; recovery and damage of a patch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.intervals import mean_interval
from interpflow.stats.ratios import (
    RatioMap,
    fieller_g,
    ratio_of_means,
    ratio_of_means_map,
)
from interpflow.stats.record import Estimate, Gate
from interpflow.stats.units import complete_units

Direction = Literal["recovery", "damage"]


@dataclass(frozen=True)
class MediationEffects:
    """Means over pairs; TE = NDE + TNIE = NIE + TNDE = NDE + NIE + INT pair by pair.

    Pearl (2001); Robins & Greenland (1992); VanderWeele (2013). `proportion_pure` is
    E[NIE]/E[TE], `proportion_total` E[TNIE]/E[TE]; they differ by INT/TE and may leave [0, 1].
    """

    te: Estimate
    nde: Estimate
    nie: Estimate
    tnie: Estimate
    tnde: Estimate
    interaction: Estimate
    proportion_pure: Estimate
    proportion_total: Estimate

    def estimates(self) -> tuple[Estimate, ...]:
        """All of them, in order."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def mediation_effects(
    y00: ArrayLike,
    y11: ArrayLike,
    y10: ArrayLike,
    y01: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    family: str = "",
) -> MediationEffects:
    """Effects of one mediator from the four corners y[input][mediator], each [pairs].

    y00 = Y(x0, M(x0)), y11 = Y(x1, M(x1)), y10 = Y(x1, M(x0)), y01 = Y(x0, M(x1)), on a log-odds
    scale. A pair that is not finite in any corner is left out of all effects and counted.
    """
    units = complete_units(y00, y11, y10, y01, clusters=clusters)
    c00, c11, c10, c01 = units.columns
    labels = None if units.n_clusters is None else units.codes

    def mean(values: np.ndarray, quantity: str) -> Estimate:
        found = mean_interval(values, clusters=labels, quantity=quantity, level=level)
        return replace(found, n_dropped=units.n_dropped, family=family)

    def share(numerator: np.ndarray, quantity: str) -> Estimate:
        found = ratio_of_means(
            numerator, c11 - c00, clusters=labels, quantity=quantity, level=level
        )
        return replace(found, n_dropped=units.n_dropped, family=family)

    return MediationEffects(
        te=mean(c11 - c00, "TE"),
        nde=mean(c10 - c00, "NDE"),
        nie=mean(c01 - c00, "NIE"),
        tnie=mean(c11 - c10, "TNIE"),
        tnde=mean(c11 - c01, "TNDE"),
        interaction=mean(c11 - c10 - c01 + c00, "INT"),
        proportion_pure=share(c01 - c00, "proportion mediated (pure)"),
        proportion_total=share(c11 - c10, "proportion mediated (total)"),
    )


def total_effect_gate(
    total_effect: ArrayLike, *, clusters: ArrayLike | None = None, level: float = 0.95
) -> Gate:
    """Gate: there is a total effect to mediate (Fieller's g < 1). `total_effect` [pairs]."""
    g = fieller_g(total_effect, clusters=clusters, level=level)
    passed = bool(g < 1)
    reason = (
        "the mean total effect differs from 0"
        if passed
        else "the mean total effect does not differ from 0: no share of it is defined"
    )
    return Gate(name="total_effect", passed=passed, value=g, threshold=1.0, reason=reason)


def _numerator(
    direction: Direction, clean: np.ndarray, corrupt: np.ndarray, patched: np.ndarray
) -> np.ndarray:
    if direction == "recovery":
        return patched - corrupt
    if direction == "damage":
        return clean - patched
    raise UserError(f"unknown direction {direction!r}", remedy="use 'recovery' or 'damage'")


def patch_effect(
    clean: ArrayLike,
    corrupt: ArrayLike,
    patched: ArrayLike,
    *,
    direction: Direction,
    clusters: ArrayLike | None = None,
    quantity: str = "",
    level: float = 0.95,
) -> Estimate:
    """Recovery Σ(patched − corrupt)/Σ(clean − corrupt), or damage Σ(clean − patched)/Σ(…).

    All [pairs], the same read-out. Recovery reads a denoising run (clean activation into the
    corrupted prompt: sufficiency), damage a noising run (necessity). Nothing is clipped.
    """
    a, b, c = (np.asarray(x, dtype=np.float64) for x in (clean, corrupt, patched))
    numerator = _numerator(direction, a, b, c)
    return ratio_of_means(
        numerator, a - b, clusters=clusters, quantity=quantity or direction, level=level
    )


def patch_effect_map(
    clean: ArrayLike,
    corrupt: ArrayLike,
    patched: ArrayLike,
    *,
    direction: Direction,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> RatioMap:
    """`patch_effect` for every cell: `clean`, `corrupt` [pairs], `patched` [pairs, cells]."""
    a, b = (np.asarray(x, dtype=np.float64)[:, None] for x in (clean, corrupt))
    numerator = _numerator(direction, a, b, np.asarray(patched, dtype=np.float64))
    return ratio_of_means_map(numerator, (a - b)[:, 0], clusters=clusters, level=level)


def divergence_recovery(
    kl_patched: ArrayLike,
    kl_corrupt: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """1 − Σ KL(clean‖patched)/Σ KL(clean‖corrupt) over pairs [n], in nats; may be negative."""
    patched, corrupt = (np.asarray(x, dtype=np.float64) for x in (kl_patched, kl_corrupt))
    return ratio_of_means(
        corrupt - patched, corrupt, clusters=clusters, quantity="KL recovery", level=level
    )
