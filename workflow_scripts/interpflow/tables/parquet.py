"""Parquet tables with a declared schema, page checksums and provenance in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interpflow.errors import UserError
from interpflow.tables.atomic import atomic_path
from interpflow.tables.provenance import SCHEMA_VERSION, Provenance
from interpflow.tables.schemas import table_schema

METADATA_KEY = b"interpflow"


def write_table(
    path: Path | str,
    name: str,
    rows: Iterable[Mapping[str, Any]] | pa.Table,
    provenance: Provenance | None = None,
) -> None:
    """Write rows under the declared schema of table `name`; extra or missing columns fail."""
    given: Any = rows
    is_table = isinstance(given, pa.Table)
    table = given if is_table else _from_rows(given, table_schema(name), name)
    write_table_parts(path, name, [table], provenance)


def write_table_parts(
    path: Path | str,
    name: str,
    parts: Iterable[pa.Table],
    provenance: Provenance | None = None,
    *,
    extra: Mapping[str, pa.DataType] | None = None,
) -> None:
    """Write a table piece by piece, one row group each, so that it is never in memory whole.

    extra: columns of this file beyond the declared schema of table `name`, with their types.
    """
    added = [pa.field(column, kind) for column, kind in (extra or {}).items()]
    metadata = {"table": name, **(provenance or Provenance()).to_dict()}
    schema = pa.schema(
        [*table_schema(name), *added],
        metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)},
    )
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for part in parts:
            writer.write_table(part.select(schema.names).cast(schema))


def read_table(path: Path | str, name: str) -> pa.Table:
    """Read a table that this version of interpflow wrote under the schema `name`.

    Raises UserError when the file is missing, damaged, of another kind or of an older schema.
    """
    target = Path(path)
    remedy = "delete it and run the same command again"
    if not target.exists():
        raise UserError("the table does not exist", where=str(target), remedy="run the workflow")
    try:
        table = pq.read_table(target, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"the table is damaged: {error}", where=str(target), remedy=remedy
        ) from error
    origin = _metadata(table, target)
    if origin["table"] != name:
        raise UserError(
            f"this is the table {origin['table']!r}, not {name!r}", where=str(target), remedy=remedy
        )
    if origin["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"written with artifact schema {origin['schema_version']}, "
            f"this version reads {SCHEMA_VERSION}",
            where=str(target),
            remedy=remedy,
        )
    return table


def read_rows(path: Path | str, name: str) -> list[dict[str, Any]]:
    """The table as a list of rows."""
    return read_table(path, name).to_pylist()


def read_provenance(path: Path | str) -> dict[str, Any]:
    """Provenance of a table, without reading its rows."""
    target = Path(path)
    try:
        schema = pq.read_schema(target)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"the table is damaged: {error}", where=str(target)) from error
    return _metadata(schema, target)


def _metadata(holder: pa.Table | pa.Schema, path: Path) -> dict[str, Any]:
    metadata = (holder.schema if isinstance(holder, pa.Table) else holder).metadata or {}
    if METADATA_KEY not in metadata:
        raise UserError("not an interpflow table: it carries no provenance", where=str(path))
    try:
        origin = json.loads(metadata[METADATA_KEY])
        complete = {"table", "schema_version"} <= set(origin)
    except (ValueError, TypeError):
        complete = False
    if not complete:
        raise UserError("the table is damaged or foreign: its provenance", where=str(path))
    return origin


def _from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, name: str) -> pa.Table:
    listed = list(rows)
    expected = set(schema.names)
    for row in listed:
        if set(row) != expected:
            wrong = ", ".join(sorted(set(row) ^ expected))
            raise ValueError(f"table {name!r}: columns do not match the schema: {wrong}")
    columns = {field.name: [row[field.name] for row in listed] for field in schema}
    return pa.table(
        {field.name: pa.array(columns[field.name], type=field.type) for field in schema}
    )
