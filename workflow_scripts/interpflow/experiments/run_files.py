"""The files of one run: spec.json before it, its rows and its environment after, `done` last."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interpflow.config.identity import canonical_json
from interpflow.errors import UserError
from interpflow.experiments.spec import RunSpec, spec_of
from interpflow.tables.atomic import TEMPORARY_MARK, full_disk
from interpflow.tables.parquet import METADATA_KEY
from interpflow.tables.provenance import Provenance, package_versions
from interpflow.tables.schemas import table_schema

SPEC_NAME, ENVIRONMENT_NAME, DONE_NAME = "spec.json", "env.json", "done"
REMEDY = "delete this directory; the next command that needs the run does it again"


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A finished run in its directory."""

    directory: Path
    spec: RunSpec

    def table(self) -> pa.Table:
        """Its rows. Raises UserError naming the directory when they are damaged or missing."""
        path = rows_path(self.directory, self.spec)
        try:
            data = path.read_bytes()
            promised = json.loads((self.directory / DONE_NAME).read_text(encoding="utf-8"))
            if promised["rows"] != hashlib.sha256(data).hexdigest():
                raise damaged(self.directory, "its rows are not those that were written")
            return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise damaged(self.directory, str(error)) from error


def rows_path(directory: Path, spec: RunSpec) -> Path:
    """Where the rows of a run lie."""
    return directory / f"{spec.table}.parquet"


def open_run(root: Path, spec: RunSpec) -> Path:
    """An unfinished directory with the spec in it; a killed run leaves it, and nobody reads it."""
    stamp = f"{os.getpid()}-{os.urandom(4).hex()}"
    directory = root / f".{spec.key}{TEMPORARY_MARK}{stamp}"
    try:
        directory.mkdir(parents=True)
        content = {"cell": spec.cell, "key": spec.key, "spec": spec.to_dict()}
        (directory / SPEC_NAME).write_text(_json(content), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise full_disk(error, root) from error
    return directory


def finish_run(directory: Path, target: Path, spec: RunSpec, rows: pa.Table) -> None:
    """Write the rows into an unfinished directory and give it its name.

    Where another process was faster its run stays, and this one is deleted. Nothing is forced to
    the disk, which would cost as much as the run: after a power cut a file that did not reach it
    is noticed by its digest, and the run is done again.
    """
    try:
        path = rows_path(directory, spec)
        metadata = json.dumps({"table": spec.table, **Provenance(rule=spec.key).to_dict()})
        rows = rows.cast(table_schema(spec.table)).replace_schema_metadata({METADATA_KEY: metadata})
        pq.write_table(rows, path, compression="zstd", write_page_checksum=True)
        (directory / ENVIRONMENT_NAME).write_text(_json(_environment()), encoding="utf-8")
        done = {"rows": hashlib.sha256(path.read_bytes()).hexdigest(), "n_rows": rows.num_rows}
        (directory / DONE_NAME).write_text(_json(done), encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        _put_in_place(directory, target)
    except OSError as error:
        raise full_disk(error, target) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def read_run(directory: Path) -> StoredRun | None:
    """The run in a directory, None where it was not finished. Raises UserError when damaged."""
    if not _is_finished(directory):
        return None
    try:
        content = json.loads((directory / SPEC_NAME).read_text(encoding="utf-8"))
        spec = spec_of(content["spec"])
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise damaged(directory, f"its {SPEC_NAME}: {error}") from error
    # The cell is taken as it was written: columns that were added since make other cells.
    if content["key"] != directory.name or content["cell"] != directory.parent.name:
        raise damaged(directory, f"its {SPEC_NAME} is that of another run")
    return StoredRun(directory, spec)


def _is_finished(directory: Path) -> bool:
    try:
        return (directory / DONE_NAME).stat().st_size > 0
    except FileNotFoundError:
        return False


def damaged(directory: Path, reason: str) -> UserError:
    return UserError(f"a stored run is damaged: {reason}", where=str(directory), remedy=REMEDY)


def _put_in_place(directory: Path, target: Path) -> None:
    try:
        directory.rename(target)
        return
    except OSError:
        if _is_finished(target):
            return
        if not target.exists():
            raise
    # A copy of a store that was cut short: a directory that is no run takes the name.
    retired = directory.with_name(f"{directory.name}-retired")
    target.rename(retired)
    directory.rename(target)
    shutil.rmtree(retired, ignore_errors=True)


@cache
def _versions() -> dict[str, str]:
    return package_versions()


def _environment() -> dict[str, Any]:
    """What a run was done with, for readers: no result is looked up by it."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": _versions(),
    }


def _json(content: Mapping[str, Any]) -> str:
    return canonical_json(content) + "\n"
