"""The columns of every Parquet table. One row is one thing; ids tie the tables together."""

from __future__ import annotations

import pyarrow as pa

from interpflow.tables.column_types import (
    FLAG,
    INT,
    REPEATED,
    RESULT_COLUMNS,
    SITE_COLUMNS,
    TEXT,
)
from interpflow.tables.counting_tables import COUNTING_TABLES
from interpflow.tables.robustness_tables import ROBUSTNESS_TABLES
from interpflow.tables.surgery_tables import SURGERY_TABLES

SHARED_TABLES: dict[str, dict[str, pa.DataType]] = {
    "activation_index": {
        "example_id": REPEATED,
        "example_row": INT,
        "token_position": INT,
        "token_id": INT,
        "char_start": INT,
        "char_end": INT,
        "role": REPEATED,
        "shard": INT,
        "row": INT,
    },
    "activation_sites": {
        "site": TEXT,
        **SITE_COLUMNS,
        "dtype": TEXT,
        "width": INT,
        "per": TEXT,
        "allow_nonfinite": FLAG,
        "model_revision": TEXT,
        "tokenizer_digest": TEXT,
    },
    "estimates": {
        "study": TEXT,
        "model": TEXT,
        "analysis": TEXT,
        "factor": TEXT,
        "level": TEXT,
        **RESULT_COLUMNS,
    },
}

_TABLES = {**SHARED_TABLES, **COUNTING_TABLES, **ROBUSTNESS_TABLES, **SURGERY_TABLES}


def table_schema(name: str) -> pa.Schema:
    """The Arrow schema of a table; KeyError for an unknown name."""
    return pa.schema([pa.field(column, kind) for column, kind in _TABLES[name].items()])


def table_names() -> tuple[str, ...]:
    return tuple(_TABLES)
