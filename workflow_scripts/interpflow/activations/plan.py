"""What a store will hold, known before the first forward pass: prompts, tokens, sites, shards.

The plan decides where every row goes. So batches may come in any order, a run that was killed
can go on, and both give the bytes of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interpflow.activations.layout import ShardLayout, shard_layout
from interpflow.activations.sites import SiteRecord
from interpflow.errors import UserError
from interpflow.tables.schemas import table_schema

# A shard is what a kill can cost and what a finished shard's index takes in memory.
SHARD_TOKENS = 16_384
SHARD_BYTES = 256 << 20
_IDS_AT_ONCE = 4096  # example ids that are Python strings at one time


def plan_store(
    example_ids: Sequence[str],
    n_tokens: Sequence[int] | NDArray[Any],
    sites: Sequence[SiteRecord],
    *,
    model_revision: str = "",
    tokenizer_digest: str = "",
    settings: Mapping[str, Any] | None = None,
    columns: Mapping[str, pa.DataType] | None = None,
    shard_tokens: int | None = None,
    together: NDArray[Any] | None = None,
) -> WritePlan:
    """Plan a store of `n_tokens[i]` kept tokens of prompt i, in this order.

    settings: whatever else the values depend on (JSON); kept in the manifest.
    columns: further columns of the index, name → Arrow type.
    shard_tokens: most kept tokens of a shard; unless given, 16,384 or as many as 256 MiB hold.
    together: a number per prompt; neighbours of one number lie in one shard.
    A prompt is never split, so a longer one makes a shard of its own.
    Raises UserError for ids or sites given twice, prompts without a token, unknown types.
    """
    # Not from the default pool: it would keep some 35 MB for what takes one.
    ids = pa.array(example_ids, type=pa.string(), memory_pool=pa.system_memory_pool())
    counts = np.asarray(n_tokens, dtype=np.int32)
    records = tuple(sites)
    _check(ids, counts, records, columns or {}, shard_tokens)
    token_bytes = sum(record.row_bytes for record in records if record.per == "token")
    limit = shard_tokens or max(1, min(SHARD_TOKENS, SHARD_BYTES // max(token_bytes, 1)))
    plan = WritePlan(
        example_ids=ids,
        n_tokens=counts,
        sites=records,
        shard_starts=_shard_starts(counts, limit, together),
        model_revision=model_revision,
        tokenizer_digest=tokenizer_digest,
        settings=dict(settings or {}),
        columns=dict(columns or {}),
    )
    plan.check_unique()
    return plan


def _check(
    ids: pa.Array,
    counts: NDArray[np.int32],
    sites: Sequence[SiteRecord],
    columns: Mapping[str, pa.DataType],
    shard_tokens: int | None,
) -> None:
    if len(ids) != len(counts) or ids.null_count:
        raise UserError(f"{len(counts)} token counts for {len(ids)} example ids", where="plan")
    if len(counts) and counts.min() < 1:
        example = ids[int(counts.argmin())].as_py()
        raise UserError("a prompt keeps no token", where=f"example {example}",
                        remedy="leave it out of the plan")  # fmt: skip
    names = [record.site for record in sites]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"a site is named twice: {', '.join(sorted(twice))}", where="sites")
    if len(ids) and not sites:
        raise UserError("nothing is to be kept of the prompts", where="sites",
                        remedy="name at least one site")  # fmt: skip
    taken = set(columns) & set(table_schema("activation_index").names)
    if taken:
        raise UserError(f"the index has these columns already: {', '.join(sorted(taken))}",
                        where="columns", remedy="choose other names")  # fmt: skip
    if shard_tokens is not None and shard_tokens < 1:
        raise UserError(f"a shard of {shard_tokens} tokens holds nothing", where="shard_tokens")


def _shard_starts(
    counts: NDArray[np.int32], limit: int, together: NDArray[Any] | None
) -> NDArray[np.int64]:
    """First prompt of every shard, and the number of prompts at the end."""
    ends = np.cumsum(counts, dtype=np.int64)
    allowed = np.arange(len(counts) + 1)
    if together is not None and len(counts):
        allowed = np.append(np.flatnonzero(np.diff(together, prepend=together[0] - 1)), len(counts))
    starts = [0]
    while starts[-1] < len(counts):
        first = starts[-1]
        before = int(ends[first - 1]) if first else 0
        stop = int(np.searchsorted(ends, before + limit, side="right"))
        last = int(np.searchsorted(allowed, stop, side="right")) - 1
        if allowed[last] <= first:
            last = int(np.searchsorted(allowed, first, side="right"))
        starts.append(int(allowed[last]))
    return np.array(starts, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class WritePlan:
    """Built by `plan_store`. Prompt p is example_ids[p]; shard s holds the prompts
    shard_starts[s] … shard_starts[s + 1] − 1. Ids are an Arrow array: a hundred thousand of them
    as Python strings take as much memory as a shard."""

    example_ids: pa.Array
    n_tokens: NDArray[np.int32]
    sites: tuple[SiteRecord, ...]
    shard_starts: NDArray[np.int64]
    model_revision: str = ""
    tokenizer_digest: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, pa.DataType] = field(default_factory=dict)

    @property
    def n_prompts(self) -> int:
        return len(self.n_tokens)

    @property
    def n_shards(self) -> int:
        return len(self.shard_starts) - 1

    @cached_property
    def token_starts(self) -> NDArray[np.int64]:
        """Kept tokens before each prompt, over all shards; their number at the end."""
        return np.concatenate([[0], np.cumsum(self.n_tokens, dtype=np.int64)])

    @property
    def total_tokens(self) -> int:
        return int(self.token_starts[-1])

    def prompts(self, shard: int) -> range:
        """The prompts of a shard."""
        return range(int(self.shard_starts[shard]), int(self.shard_starts[shard + 1]))

    def tokens(self, shard: int) -> int:
        """Kept tokens of a shard."""
        first, stop = self.shard_starts[shard], self.shard_starts[shard + 1]
        return int(self.token_starts[stop] - self.token_starts[first])

    def shard_of(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.shard_starts, prompts, side="right") - 1

    def layout(self, shard: int, digest: str) -> ShardLayout:
        return shard_layout(self.sites, self.tokens(shard), len(self.prompts(shard)), digest)

    def find(self, example_ids: Sequence[str]) -> NDArray[np.int64]:
        """The prompts with these ids. Raises ValueError for one that was not planned."""
        hashes, prompts = self._by_hash
        found = np.empty(len(example_ids), dtype=np.int64)
        for i, example_id in enumerate(example_ids):
            place = int(np.searchsorted(hashes, hash(example_id)))
            while place < len(hashes) and hashes[place] == hash(example_id):
                if self.example_ids[int(prompts[place])].as_py() == example_id:
                    break
                place += 1  # another id of the same hash
            else:
                raise ValueError(f"the plan has no example {example_id!r}")
            found[i] = prompts[place]
        return found

    def check_unique(self) -> None:
        """Raise UserError when an example id is planned twice."""
        hashes, prompts = self._by_hash
        for place in np.flatnonzero(hashes[1:] == hashes[:-1]):
            example_id = self.example_ids[int(prompts[place])].as_py()
            if example_id == self.example_ids[int(prompts[place + 1])].as_py():
                raise UserError(f"example {example_id} is planned twice", where="example_ids",
                                remedy="give every prompt an id of its own")  # fmt: skip

    def digest(self, provenance: Mapping[str, Any]) -> str:
        """SHA-256 of everything that decides the bytes: two runs share shards only if equal."""
        rest = {
            "sites": [vars(record) for record in self.sites],
            "shards": self.shard_starts.tolist(),
            "model_revision": self.model_revision,
            "tokenizer_digest": self.tokenizer_digest,
            "settings": self.settings,
            "columns": {name: str(kind) for name, kind in self.columns.items()},
            "provenance": provenance,
        }
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode())
        digest.update(self.n_tokens.astype("<i4").tobytes())
        for ids in self._ids():
            digest.update(json.dumps(ids).encode())
        return digest.hexdigest()

    def _ids(self) -> Iterator[list[str]]:
        for start in range(0, self.n_prompts, _IDS_AT_ONCE):
            yield self.example_ids.slice(start, _IDS_AT_ONCE).to_pylist()

    @cached_property
    def _by_hash(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Hashes of the ids in order, and their prompts: a dictionary in twelve bytes an id."""
        hashes = np.fromiter(
            (hash(example_id) for ids in self._ids() for example_id in ids),
            dtype=np.int64, count=self.n_prompts,
        )  # fmt: skip
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        return hashes[order], order
