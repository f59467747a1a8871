"""Runs of the store as runs of MLflow, for those who compare experiments there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.config.identity import canonical_json
from interpflow.errors import UserError
from interpflow.experiments.run_files import StoredRun
from interpflow.experiments.store import RUN_COLUMNS, Store

KEY_TAG = "interpflow.run"
# MLflow refuses longer values of parameters.
MAX_PARAMETER = 500


def export_runs(root: Path | str, experiment: str, *, tracking_uri: str | None = None) -> int:
    """Write each finished run of a store to an MLflow experiment; returns how many are new.

    Parameters are the parts of the spec, metrics the means of the numeric columns over items, the
    tag `interpflow.run` the key; a run that is there already is left alone. Raises UserError when
    MLflow is not installed.
    """
    client = _client(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    n_new = 0
    for run in Store(root).runs():
        if client.search_runs([place], f"tags.`{KEY_TAG}` = '{run.directory.name}'", max_results=1):
            continue
        _export(client, place, run)
        n_new += 1
    return n_new


def _export(client: Any, place: str, run: StoredRun) -> None:
    spec = run.spec
    tags = {
        KEY_TAG: run.directory.name,
        "interpflow.cell": run.directory.parent.name,
        "mlflow.runName": spec.plan,
    }
    made = client.create_run(place, tags=tags).info.run_id
    parameters = {
        "model": canonical_json(spec.model), "plan": spec.plan, "measure": spec.measure,
        "settings": canonical_json(spec.settings), "dtype": spec.dtype, "seed": spec.seed,
        "n_items": len(spec.item_ids), "code": spec.code,
    }  # fmt: skip
    for name, value in parameters.items():
        client.log_param(made, name, str(value)[:MAX_PARAMETER])
    for name, value in _means(run.table()).items():
        client.log_metric(made, name, value)
    client.set_terminated(made)


def _means(rows: pa.Table) -> dict[str, float]:
    """Mean of every numeric or true-or-false column over the items; those without a value of any
    item are left out."""
    found = {}
    for name in rows.column_names:
        kind = rows.schema.field(name).type
        numeric = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if name in RUN_COLUMNS or not (numeric or pa.types.is_boolean(kind)):
            continue
        values = rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        values = values[np.isfinite(values)]
        if values.size:
            found[name] = float(values.mean())
    return found


def _client(tracking_uri: str | None) -> Any:
    try:
        tracking = importlib.import_module("mlflow.tracking")
    except ImportError as error:
        raise UserError(
            "MLflow is not installed",
            where="export of the store of experiments",
            remedy="run pip install mlflow-skinny, or read the store with DuckDB "
            "(interpflow.experiments.views.connect)",
        ) from error
    return tracking.MlflowClient(tracking_uri=tracking_uri)
