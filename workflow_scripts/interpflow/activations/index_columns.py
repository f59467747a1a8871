"""What the caller says of every kept token, as typed columns of the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from interpflow.tables.schemas import table_schema

# Of the declared columns, those the caller gives; the others follow from the plan.
GIVEN_COLUMNS = ("token_position", "token_id", "char_start", "char_end", "role")
REQUIRED_COLUMNS = ("token_position",)
DEFAULT_ROLE = ""


def index_columns(
    given: Mapping[str, Sequence[Any] | Any], n_tokens: int, extra: Mapping[str, pa.DataType]
) -> pa.Table:
    """Columns of `n_tokens` kept tokens: token, characters and role where unknown are null, null
    and "". Raises ValueError for a missing, unknown or too short column."""
    allowed = {*GIVEN_COLUMNS, *extra}
    missing = [name for name in (*REQUIRED_COLUMNS, *extra) if name not in given]
    unknown = [name for name in given if name not in allowed]
    if missing or unknown:
        what = f"missing: {', '.join(missing)}" if missing else f"unknown: {', '.join(unknown)}"
        raise ValueError(f"index columns {what}; declare further ones in the plan")
    declared = table_schema("activation_index")
    columns = {}
    for name in (*GIVEN_COLUMNS, *extra):
        kind = extra[name] if name in extra else declared.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type  # encoded when the shard is whole, so that order has no say
        if name in given:
            column = pa.array(given[name], type=kind)
        elif name == "role":
            column = pa.repeat(pa.scalar(DEFAULT_ROLE, kind), n_tokens)
        else:
            column = pa.nulls(n_tokens, kind)
        if len(column) != n_tokens:
            raise ValueError(f"index column {name}: {len(column)} values for {n_tokens} tokens")
        columns[name] = column
    return pa.table(columns)
