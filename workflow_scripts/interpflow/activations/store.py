"""Read a store: a prompt's rows at a site as a view of the mapped file, or all rows as a matrix."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interpflow.activations.dtypes import to_float32
from interpflow.activations.files import (
    INDEX_NAME,
    INDEX_TABLE,
    SITES_NAME,
    SITES_TABLE,
    shard_name,
)
from interpflow.activations.layout import ShardLayout
from interpflow.activations.sites import SiteRecord, sites_of
from interpflow.activations.verify import Verify, check_shards, read_manifest
from interpflow.errors import UserError
from interpflow.tables.parquet import read_rows, read_table


def open_store(path: Path | str, *, verify: Verify | None = None) -> ActivationStore:
    """Open the store at `path`.

    verify: "digest" reads every file and compares its SHA-256, about a second per gigabyte;
    "size" compares the size and header of every shard, and the digests of the tables alone.
    Unless given, stores up to 1 GiB are verified by digest and larger ones by size.
    Raises UserError when the store is missing, unfinished, damaged or no store.
    """
    directory = Path(path)
    manifest = read_manifest(directory, verify)
    sites = sites_of(read_rows(directory / SITES_NAME, SITES_TABLE))
    layouts = check_shards(directory, manifest, tuple(sites.values()))
    return ActivationStore(directory, manifest, sites, layouts)


class ActivationStore:
    """An open store; get one from `open_store`.

    `sites`: names of the tensors, `records`: what each is. Row r of `matrix(site)` is row r of
    `index` (for a site per prompt: prompt r of `examples`). The files are mapped when they are
    first read, and only what is read comes into memory.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Mapping[str, Any],
        records: Mapping[str, SiteRecord],
        layouts: Sequence[ShardLayout],
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.records = dict(records)
        self.sites = tuple(records)
        self._layouts = layouts
        self._maps: dict[tuple[int, bool], mmap.mmap] = {}
        self._arrays: dict[tuple[int, str], NDArray[Any]] = {}
        self._tensors: dict[tuple[int, str], Any] = {}
        self._places = _places(directory / INDEX_NAME)

    def __repr__(self) -> str:
        return (
            f"<ActivationStore {self.directory}: {len(self.sites)} sites of "
            f"{self.n_prompts} prompts, {self.n_tokens} tokens>"
        )

    @property
    def n_tokens(self) -> int:
        return int(self.manifest["n_tokens"])

    @property
    def n_prompts(self) -> int:
        return int(self.manifest["n_prompts"])

    @cached_property
    def index(self) -> pa.Table:
        """The table `activation_index`: one row per kept token. Read when first asked for."""
        return read_table(self.directory / INDEX_NAME, INDEX_TABLE)

    @cached_property
    def examples(self) -> tuple[str, ...]:
        """Ids of the prompts, in the order of the store."""
        return tuple(self._places)

    def read(self, site: str, example_id: str, *, as_torch: bool = False) -> Any:
        """One prompt's rows at a site: [kept tokens, width], or [width] for a site per prompt.

        A NumPy array is a read-only view of the file, without a copy; bfloat16, which NumPy has
        not, is converted to float32. A torch tensor (`as_torch`) is a view in every type; what
        is written into it stays in this open store's memory and never reaches the file.
        Raises UserError for a site or an example that is not in the store.
        """
        try:
            shard, row, stop, prompt = self._places[example_id]
        except KeyError:
            raise UserError(f"no activations of example {example_id!r}",
                            where=str(self.directory)) from None  # fmt: skip
        record = self._record(site)
        rows = slice(row, stop) if record.per == "token" else prompt
        if as_torch:
            return self._tensor(shard, record)[rows]
        bits = self._array(shard, record)[rows]
        return to_float32(bits, record.dtype) if record.dtype == "bfloat16" else bits

    def matrix(self, site: str, rows: Sequence[int] | NDArray[Any] | None = None) -> NDArray[Any]:
        """The site's rows [row, width] in memory, float32 (int32 for a site of integers).

        rows: row numbers of the index (of `examples` for a site per prompt), or a mask over
        them; all unless given. Only what is asked for is read.
        """
        record = self._record(site)
        key = "n_tokens" if record.per == "token" else "n_prompts"
        starts = np.cumsum([0, *(shard[key] for shard in self.manifest["shards"])])
        chosen = None if rows is None else self._chosen(site, np.asarray(rows), int(starts[-1]))
        n_rows = int(starts[-1]) if chosen is None else len(chosen)
        number = np.float32 if record.storage.is_float else np.int32
        found = np.empty((n_rows, record.width), dtype=number)
        for shard, start in enumerate(starts[:-1]):
            here: Any = slice(start, starts[shard + 1])
            bits = self._array(shard, record)
            if chosen is not None:
                here = np.flatnonzero((chosen >= start) & (chosen < starts[shard + 1]))
                bits = bits[chosen[here] - start]
            found[here] = to_float32(bits, record.dtype) if record.dtype == "bfloat16" else bits
        return found

    def _chosen(self, site: str, rows: NDArray[Any], n_rows: int) -> NDArray[np.int64]:
        """Row numbers from row numbers or a mask; refuses those outside the site."""
        if rows.dtype == np.bool_:
            if len(rows) != n_rows:
                raise UserError(f"{site} has {n_rows} rows, the mask {len(rows)}",
                                where=str(self.directory))  # fmt: skip
            return np.flatnonzero(rows)
        if not rows.size:
            return np.empty(0, dtype=np.int64)
        if rows.dtype.kind not in "iu" or not 0 <= rows.min() <= rows.max() < n_rows:
            raise UserError(f"{site} has {n_rows} rows, asked for {rows.min()} to {rows.max()}",
                            where=str(self.directory))  # fmt: skip
        return rows.astype(np.int64)

    def _record(self, site: str) -> SiteRecord:
        if site not in self.records:
            raise UserError(
                f"no activations of {site}", where=str(self.directory),
                remedy=f"there are: {', '.join(self.sites)}",
            )  # fmt: skip
        return self.records[site]

    def _shape(self, shard: int, record: SiteRecord) -> tuple[int, int]:
        counts = self.manifest["shards"][shard]
        return counts["n_tokens" if record.per == "token" else "n_prompts"], record.width

    def _array(self, shard: int, record: SiteRecord) -> NDArray[Any]:
        """A site's bits in a shard [rows, width], mapped read-only."""
        key = shard, record.site
        if key not in self._arrays:
            shape = self._shape(shard, record)
            flat = np.frombuffer(
                self._map(shard, writable=False), record.storage.bits, shape[0] * shape[1],
                self._layouts[shard].offsets[record.site],
            )  # fmt: skip
            self._arrays[key] = flat.reshape(shape)
        return self._arrays[key]

    def _tensor(self, shard: int, record: SiteRecord) -> Any:
        """The same as a torch tensor. torch knows no read-only memory: it gets a private map."""
        key = shard, record.site
        if key not in self._tensors:
            import torch

            shape = self._shape(shard, record)
            flat = torch.frombuffer(
                self._map(shard, writable=True), dtype=getattr(torch, record.dtype),
                count=shape[0] * shape[1], offset=self._layouts[shard].offsets[record.site],
            )  # fmt: skip
            self._tensors[key] = flat.view(shape)
        return self._tensors[key]

    def _map(self, shard: int, *, writable: bool) -> mmap.mmap:
        key = shard, writable
        if key not in self._maps:
            access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
            with (self.directory / shard_name(shard)).open("rb") as file:
                self._maps[key] = mmap.mmap(file.fileno(), 0, access=access)
        return self._maps[key]


def _places(path: Path) -> dict[str, tuple[int, int, int, int]]:
    """Example id → shard, first row in it, row after the last, prompt number in it.

    From the index, a row group (a shard) at a time. Raises UserError where rows do not add up.
    """
    places: dict[str, tuple[int, int, int, int]] = {}
    columns = ["example_id", "example_row", "shard", "row"]
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns)
            if not len(table):
                continue
            prompts = table["example_row"].to_numpy()
            firsts = np.concatenate([[0], np.flatnonzero(np.diff(prompts)) + 1])
            stops = np.append(firsts[1:], len(prompts)).tolist()
            ids = pc.cast(table["example_id"].take(pa.array(firsts)), pa.string()).to_pylist()
            shard = int(table["shard"][0].as_py())
            for prompt, (example_id, first, stop) in enumerate(zip(ids, firsts.tolist(), stops)):
                places[example_id] = shard, first, stop, prompt
    return places
