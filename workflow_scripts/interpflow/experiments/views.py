"""The store as a database to ask: one view of all runs and one of the rows of each measure."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from interpflow.config.identity import canonical_json
from interpflow.experiments.run_files import StoredRun, rows_path
from interpflow.experiments.spec import MEASURES, MODEL_NAME, TABLES
from interpflow.experiments.store import Store
from interpflow.tables.schemas import table_schema

RUNS_VIEW = "runs"
# What of a run stands beside its rows; their own column `run` is the key.
_CARRIED = ("cell", "model", "measure")


def connect(root: Path | str) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the finished runs of a store as they are now.

    Views: `runs` (cell, run, model, plan, measure, n_items, settings, dtype, device_kind, seed,
    code, directory), and by measure `surgery_answers`, `surgery_text_losses` and
    `surgery_generations`: their rows with the cell and model of the run. Where two runs measured
    the same item of a cell, both rows are there. Raises UserError for a damaged run.
    """
    runs = Store(root).runs()
    connection = duckdb.connect()
    connection.register(RUNS_VIEW, _runs_table(runs))
    for measure in MEASURES:
        table = TABLES[measure][0]
        files = [
            str(rows_path(run.directory, run.spec)) for run in runs if run.spec.measure == measure
        ]
        if not files:
            connection.register(table, _empty(table))
            continue
        listed = ", ".join(f"'{_quoted(file)}'" for file in files)
        carried = ", ".join(f"{RUNS_VIEW}.{column}" for column in _CARRIED)
        connection.execute(
            f"CREATE TEMP VIEW {table} AS SELECT {carried}, rows.* "
            f"FROM read_parquet([{listed}], union_by_name = true) AS rows "
            f"JOIN {RUNS_VIEW} USING (run)"
        )
    return connection


def _runs_table(runs: list[StoredRun]) -> pa.Table:
    rows = [
        {
            "cell": run.directory.parent.name,
            "run": run.directory.name,
            "model": str(run.spec.model.get(MODEL_NAME, "")),
            "plan": run.spec.plan,
            "measure": run.spec.measure,
            "n_items": len(run.spec.item_ids),
            "settings": canonical_json(run.spec.settings),
            "dtype": run.spec.dtype,
            "device_kind": run.spec.device_kind,
            "seed": run.spec.seed,
            "code": run.spec.code,
            "directory": str(run.directory),
        }
        for run in runs
    ]
    numbers = {"n_items": pa.int32(), "seed": pa.int64()}
    columns = ("cell", "run", "model", "plan", "measure", "n_items", "settings", "dtype",
               "device_kind", "seed", "code", "directory")  # fmt: skip
    schema = pa.schema([(name, numbers.get(name, pa.string())) for name in columns])
    return pa.Table.from_pylist(rows, schema=schema)


def _empty(table: str) -> pa.Table:
    carried = [pa.field(column, pa.string()) for column in _CARRIED]
    return pa.schema([*carried, *table_schema(table)]).empty_table()


def _quoted(text: str) -> str:
    return text.replace("'", "''")
