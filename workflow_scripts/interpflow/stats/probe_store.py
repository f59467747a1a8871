"""Probe a site of an activation store: targets by token, controls by word, plain baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from interpflow.errors import UserError
from interpflow.stats.control_tasks import DEFAULT_CONTROL_SETS, word_type_controls
from interpflow.stats.folds import DEFAULT_FOLDS
from interpflow.stats.probe_baselines import (
    position_features,
    token_bag_features,
    token_features,
)
from interpflow.stats.probes import LinearProbe, logistic_probe, ridge_probe
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS

Kind = Literal["ridge", "logistic"]
Baseline = Literal["position", "token", "token_bag"]
BASELINES: tuple[Baseline, ...] = ("position", "token", "token_bag")


class ActivationMatrix(Protocol):
    """What a probe needs of an activation store.

    `index`: a table (pyarrow) with the columns `example_id`, `token_position`, `token_id`, one row
    per token; `matrix(site, rows)`: activations [rows, width] of those rows of the index.
    """

    @property
    def index(self) -> Any: ...

    def matrix(self, site: str, rows: Any = None) -> NDArray[Any]: ...


@dataclass(frozen=True)
class StoreProbe:
    """A probe of one site and the tokens it was fitted on, row by row as in `probe.predictions`.

    `rows` [rows] numbers of the store's index; `targets` [rows].
    """

    site: str
    probe: LinearProbe
    rows: NDArray[np.intp]
    example_ids: tuple[str, ...]
    token_positions: NDArray[np.int64]
    families: NDArray[Any]
    targets: NDArray[Any]

    def to_rows(self) -> list[dict[str, Any]]:
        """One mapping per token: where it is, its family and fold, target and prediction."""
        return [
            {
                "site": self.site,
                "example_id": example_id,
                "token_position": int(position),
                "family_id": family,
                "fold": int(fold),
                "target": target,
                "prediction": prediction,
            }
            for example_id, position, family, fold, target, prediction in zip(
                self.example_ids,
                self.token_positions,
                self.families.tolist(),
                self.probe.fold_of,
                self.targets.tolist(),
                self.probe.predictions.tolist(),
                strict=True,
            )
        ]


def probe_store(
    store: ActivationMatrix,
    site: str,
    targets: Mapping[tuple[str, int], Any],
    families: Mapping[str, Any],
    *,
    kind: Kind = "ridge",
    control_by: str = "token_id",
    n_controls: int = DEFAULT_CONTROL_SETS,
    baselines: Sequence[Baseline] = BASELINES,
    n_folds: int = DEFAULT_FOLDS,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> StoreProbe:
    """Probe `site` for a value given at some tokens, with control tasks and baselines.

    `targets`: (example_id, token_position) → number (ridge) or label (logistic); tokens of the
    store without a target are not used. `families`: example_id → family, the unit that folds and
    intervals keep whole. Control tasks give each value of the index column `control_by` (token
    ids, or a column of words) a random target. Baselines: one-hot or spline of the position; the
    token's own identity; the tokens of the example so far that have a target.
    Raises UserError for a token or family that is missing, an unknown column, kind or baseline,
    or too few families.
    """
    index = store.index
    for column in ("example_id", "token_position", "token_id", control_by):
        if column not in index.column_names:
            raise UserError(
                f"the index of the activations has no column {column!r}",
                remedy=f"there are: {', '.join(index.column_names)}",
            )
    rows, keys = _rows(index, targets)
    ids = [example_id for example_id, _ in keys]
    positions = np.array([position for _, position in keys], dtype=np.int64)
    values = np.array([targets[key] for key in keys])
    family_of = np.array([_family(families, example_id) for example_id in ids])
    words = index[control_by].take(rows).to_pylist()
    made = _baselines(baselines, index["token_id"].take(rows).to_pylist(), ids, positions)
    controls = word_type_controls(words, values, n_sets=n_controls, seed=seed)
    if kind not in ("ridge", "logistic"):
        raise UserError(f"unknown kind of probe {kind!r}", remedy="use 'ridge' or 'logistic'")
    fitted = (ridge_probe if kind == "ridge" else logistic_probe)(
        store.matrix(site, rows),
        values,
        family_of,
        controls=controls if n_controls else None,
        baselines=made,
        n_folds=n_folds,
        n_resamples=n_resamples,
        seed=seed,
    )
    return StoreProbe(site, fitted, rows, tuple(ids), positions, family_of, values)


def _rows(
    index: Any, targets: Mapping[tuple[str, int], Any]
) -> tuple[NDArray[np.intp], list[tuple[str, int]]]:
    """Rows of the index that have a target, in its order, and their keys."""
    ids, places = index["example_id"].to_pylist(), index["token_position"].to_pylist()
    found = [(row, key) for row, key in enumerate(zip(ids, places)) if key in targets]
    keys = [key for _, key in found]
    missing = set(targets).difference(keys)
    if missing:
        example_id, position = min(missing)
        raise UserError(
            f"{len(missing)} of {len(targets)} targets have no activations",
            where=f"example {example_id!r}, token {position}",
            remedy="capture these tokens, or leave their targets out",
        )
    return np.array([row for row, _ in found], dtype=np.intp), keys


def _family(families: Mapping[str, Any], example_id: str) -> Any:
    if example_id not in families:
        raise UserError(f"example {example_id!r} has no family", where="families")
    return families[example_id]


def _baselines(
    names: Sequence[Baseline],
    tokens: Sequence[int],
    ids: Sequence[str],
    positions: NDArray[np.int64],
) -> dict[str, NDArray[np.float64]]:
    makers = {
        "position": lambda: position_features(positions),
        "token": lambda: token_features(tokens),
        "token_bag": lambda: token_bag_features(tokens, ids, positions),
    }
    unknown = sorted(set(names).difference(makers))
    if unknown:
        raise UserError(f"unknown baseline {unknown[0]!r}", remedy=f"use any of {list(makers)}")
    return {name: makers[name]() for name in names}
