"""Adjusted p-values that leave undefined p-values undefined and out of the count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.record import Estimate

Method = Literal["holm", "bh", "by"]
FloatArray = NDArray[np.float64]


def _on_defined(p_values: ArrayLike, rule: Callable[[FloatArray], FloatArray]) -> FloatArray:
    values = np.asarray(p_values, dtype=np.float64)
    defined = np.isfinite(values)
    adjusted = np.full(values.shape, np.nan)
    if defined.any():
        adjusted[defined] = np.clip(rule(values[defined]), 0, 1)
    return adjusted


def _holm_sorted(p_values: FloatArray) -> FloatArray:
    order = np.argsort(p_values, kind="stable")
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    result = np.empty_like(p_values)
    result[order] = np.maximum.accumulate(steps)
    return result


def _bh_sorted(p_values: FloatArray) -> FloatArray:
    order = np.argsort(p_values, kind="stable")[::-1]
    count = len(p_values)
    steps = p_values[order] * count / np.arange(count, 0, -1)
    result = np.empty_like(p_values)
    result[order] = np.minimum.accumulate(steps)
    return result


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm (1979) adjusted p-values, any shape; family-wise error under any dependence."""
    return _on_defined(p_values, _holm_sorted)


def bh(p_values: ArrayLike) -> FloatArray:
    """Benjamini & Hochberg (1995) adjusted p-values; independence or positive dependence."""
    return _on_defined(p_values, _bh_sorted)


def by(p_values: ArrayLike) -> FloatArray:
    """Benjamini & Yekutieli (2001) adjusted p-values; any dependence."""
    return _on_defined(
        p_values, lambda values: _bh_sorted(values) * np.sum(1 / np.arange(1, len(values) + 1))
    )


METHODS: dict[str, Callable[[ArrayLike], FloatArray]] = {"holm": holm, "bh": bh, "by": by}


def adjust(
    estimates: Sequence[Estimate], *, method: Method = "holm", family: str
) -> tuple[Estimate, ...]:
    """The same estimates with p_adjusted over this family. Raises UserError for another method."""
    if method not in METHODS:
        raise UserError(
            f"unknown multiplicity method {method!r}", remedy=f"use one of {', '.join(METHODS)}"
        )
    adjusted = METHODS[method]([estimate.p_value for estimate in estimates])
    return tuple(
        replace(estimate, p_adjusted=float(value), family=family)
        for estimate, value in zip(estimates, adjusted, strict=True)
    )
