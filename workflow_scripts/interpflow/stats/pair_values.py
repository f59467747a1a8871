"""Patched pairs arranged for their statistics: pairs × places, real donor beside control donor."""

# Indexing a DataFrame has no static type: the columns are those of tables/schemas.py.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # tables come as they are; importing it would cost every light rule its start
    import pandas as pd

SITE = ["component", "layer", "head", "slot"]


def pair_values(
    table: pd.DataFrame, direction: str, metric: str, *, control: str = "control"
) -> PairValues:
    """Arrange long rows of one direction as pairs × cells; `control` names the control donor."""
    chosen = table[table["direction"] == direction]
    wide = {
        donor: rows.pivot(index="pair_id", columns=SITE, values=metric)
        for donor, rows in chosen.groupby("donor")
    }
    real = wide["real"]
    placebo = wide.get(control)
    if placebo is not None:
        placebo = placebo.reindex(index=real.index, columns=real.columns)
    first = first_of_pair(chosen).loc[real.index]
    base, donor = first[f"base_{metric}"].to_numpy(), first[f"donor_{metric}"].to_numpy()
    clean, corrupt = (donor, base) if direction == "denoise" else (base, donor)
    return PairValues(
        cells=list(real.columns),
        pairs=list(real.index),
        families=clusters_of(first["family_id"].to_numpy()),
        patched=real.to_numpy(dtype=float),
        control=None if placebo is None else placebo.to_numpy(dtype=float),
        clean=clean,
        corrupt=corrupt,
    )


def clusters_of(families: np.ndarray) -> np.ndarray | None:
    """Base lists as clusters; None when every pair has a base list of its own."""
    return families if len(set(families)) < len(families) else None


def first_of_pair(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per pair, by pair id: what does not depend on the place patched."""
    real = rows[rows["donor"] == "real"]
    return real.drop_duplicates(subset=["pair_id"]).set_index("pair_id")


@dataclass(frozen=True)
class PairValues:
    """One direction's read-outs: `patched` and `control` [pairs, cells], the rest [pairs].

    NaN where a pair has no such place. `cells` are (component, layer, head, slot).
    """

    cells: list[tuple[str, int, int, str]]
    pairs: list[str]
    families: np.ndarray | None
    patched: np.ndarray
    control: np.ndarray | None
    clean: np.ndarray
    corrupt: np.ndarray
