"""A shard that is being filled: rows go to their place in the file as they come.

Rows are written with positioned writes into a file of the final size. The page cache takes them
at the speed of a copy and the system brings them to the disk while the model runs on. Measured
against it on 511 MB beside a model's work (100 batches, 13 sites of 768 in float16): a memory map
of the file costs the same CPU time (6.8 s both), but adds the whole shard to the resident memory
(774 against 274 MB) and a full disk kills the process (SIGBUS) instead of raising an error; a
writer thread costs the same CPU time too and holds batches that wait. Only what really waits
for the disk, the end of a shard, is left to a thread by the writer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interpflow.activations.files import (
    INDEX_TABLE,
    SHARD_DOCUMENT,
    index_part,
    shard_document,
    shard_name,
)
from interpflow.activations.plan import WritePlan
from interpflow.activations.sites import SiteRecord
from interpflow.tables.atomic import TEMPORARY_MARK, sync_directory
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import write_table_parts
from interpflow.tables.provenance import file_digest
from interpflow.tables.schemas import table_schema


class OpenShard:
    """One shard of a plan. Its memory is its part of the index; tensors go to the file at once."""

    def __init__(self, directory: Path, plan: WritePlan, shard: int, digest: str) -> None:
        self._directory, self._plan, self.shard = directory, plan, shard
        self._layout = plan.layout(shard, digest)
        self._prompts = plan.prompts(shard)
        self._first_token = int(plan.token_starts[self._prompts.start])
        self._written = np.zeros(len(self._prompts), dtype=bool)
        self._index: dict[int, pa.Table] = {}  # first row → columns of the rows from there on
        self._path = directory / f".{shard_name(shard)}{TEMPORARY_MARK}fill"
        with self._path.open("wb") as file:
            file.write(self._layout.header)
            file.truncate(self._layout.n_bytes)

    @property
    def is_full(self) -> bool:
        return bool(self._written.all())

    def opened(self) -> BinaryIO:
        """The file, for `put`. Not kept open: prompts in any order may fill many shards at once."""
        return self._path.open("r+b", buffering=0)

    def check_new(self, first: int, stop: int) -> None:
        """Raise ValueError when one of the prompts first … stop − 1 is there already."""
        if self._written[self._places(first, stop)].any():
            raise ValueError("a prompt was given twice")

    def put(self, file: BinaryIO, record: SiteRecord, first: int, bits: NDArray[Any]) -> None:
        """Write a site's rows of the prompts from `first` on."""
        row = first - self._prompts.start if record.per == "prompt" else self._row(first)
        offset = self._layout.offsets[record.site] + row * record.row_bytes
        rest = bits.reshape(-1).view(np.uint8).data
        while rest:  # one call writes at most 2 GiB
            count = os.pwrite(file.fileno(), rest, offset)
            rest, offset = rest[count:], offset + count

    def mark(self, first: int, stop: int, columns: pa.Table) -> None:
        """The prompts first … stop − 1 are written, at every site; `columns` go to the index."""
        self._index[self._row(first)] = columns
        self._written[self._places(first, stop)] = True

    def finish(self) -> None:
        """Bring the shard to the disk under its name, then its index, then its document."""
        write_table_parts(
            index_part(self._directory, self.shard), INDEX_TABLE, [self._index_table()],
            extra=self._plan.columns,
        )  # fmt: skip
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        final = self._directory / shard_name(self.shard)
        content = {"bytes": self._layout.n_bytes, "sha256": file_digest(self._path)}
        self._path.replace(final)
        sync_directory(self._directory)
        write_document(shard_document(self._directory, self.shard), SHARD_DOCUMENT, content)

    def _index_table(self) -> pa.Table:
        """The shard's index; a function of its rows alone, not of the order they came in."""
        plan, prompts = self._plan, self._prompts
        given = pa.concat_tables([self._index[row] for row in sorted(self._index)])
        counts = plan.n_tokens[prompts.start : prompts.stop]
        local = np.repeat(np.arange(len(prompts), dtype=np.int32), counts)
        ids = plan.example_ids.slice(prompts.start, len(prompts))
        computed = {
            "example_id": pa.DictionaryArray.from_arrays(pa.array(local), ids),
            "example_row": pa.array(local + np.int32(prompts.start)),
            "shard": pa.array(np.full(len(local), self.shard, dtype=np.int32)),
            "row": pa.array(np.arange(len(local), dtype=np.int32)),
        }
        columns = {}
        for name in [*table_schema(INDEX_TABLE).names, *plan.columns]:
            column = computed.get(name)
            if column is None:
                column = given[name].combine_chunks()
                if pa.types.is_string(column.type):
                    column = column.dictionary_encode()
            columns[name] = column
        return pa.table(columns)

    def _places(self, first: int, stop: int) -> slice:
        return slice(first - self._prompts.start, stop - self._prompts.start)

    def _row(self, prompt: int) -> int:
        return int(self._plan.token_starts[prompt]) - self._first_token
