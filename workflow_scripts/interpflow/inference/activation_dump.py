"""States of many prompts to a store on disk, in one pass over them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpflow.activations.dtypes import is_finite, to_stored
from interpflow.activations.plan import plan_store
from interpflow.activations.sites import SiteRecord
from interpflow.activations.writer import ActivationWriter
from interpflow.engine.model import Model
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.engine.passes.freed_pages import freed_pages_kept
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.path import joining_blocks
from interpflow.errors import UserError
from interpflow.inference.batching import Progress
from interpflow.inference.forward import check_fits
from interpflow.inference.kept_states import (
    TOP_IDS,
    TOP_LOGITS,
    KeptPlaces,
    Wanted,
    pattern_name,
    run_batch,
)
from interpflow.inference.packed_prompts import (
    PackedPrompts,
    Positions,
    equal_length_batches,
    pack_prompts,
    pack_queries,
)
from interpflow.inference.top_logits import TopLogits
from interpflow.tables.provenance import Provenance

# The residual stream: what enters block 0, and what leaves each block.
HIDDEN_STATES = ("embed", "resid_post")
# Tokens per batch: linears are at full speed, and states between them mostly fit in a CPU's cache.
TOKEN_BUDGET = 1024
LAST_QUERY = "last"

Columns = Mapping[str, Sequence[Sequence[Any]]]


def dump_activations(
    model: Model,
    prompts: Sequence[Sequence[int]],
    path: Path | str,
    *,
    example_ids: Sequence[str],
    sites: Sequence[str | Site] = HIDDEN_STATES,
    layers: Sequence[int] | None = None,
    positions: Positions = "all",
    dtype: str | None = None,
    pattern_dtype: str | None = None,
    top_k: int = 0,
    final_query_patterns: bool = False,
    query_patterns: Mapping[str, Sequence[int | None]] | None = None,
    columns: Columns | None = None,
    column_types: Mapping[str, pa.DataType] | None = None,
    model_revision: str = "",
    tokenizer_digest: str = "",
    token_budget: int = TOKEN_BUDGET,
    shard_tokens: int | None = None,
    provenance: Provenance | None = None,
    progress: logging.Logger | None = None,
) -> int:
    """Run every prompt once and write what is asked for to an activation store at `path`; returns
    the number of kept tokens.

    prompts: token ids; example_ids[i] names prompts[i]. In the store, the longest come first.
    sites: components (in `layers`, all unless named; heads together) or sites. "embed" is the
    input of block 0 and "resid_post.L3" the output of block 3, both before the final norm, which
    in `hidden_states` of transformers is already part of the last one.
    positions: of which tokens: all, the last one ("answer"), or token positions of each prompt.
    dtype: of states and patterns; as the model computes them unless given (float64, which is not
    stored, becomes float32). pattern_dtype: of patterns alone, `dtype` unless given: float16 has no
    attention below 6e-8, and few digits of what is below 6e-5.
    top_k: keep so many largest logits ("top_logits", float32) with their ids ("top_ids", int32),
    in falling order.
    final_query_patterns: keep "pattern_last.L3" [token, head]: the attention that the prompt's
    last query pays to the token, in `layers`.
    query_patterns: name -> per prompt a position or None: keep "pattern_{name}.L3" [token, head],
    the attention that this query pays to the token; 0 for tokens after it, and where it is None.
    columns: name -> prompt -> a value per kept token: char_start, char_end, role, and columns of
    your own, whose Arrow types `column_types` declares. Position and id of tokens are there anyway.

    Prompts of equal length share a batch of at most `token_budget` tokens (or one prompt), so
    nothing is padded and memory does not grow with their number. Prompts that are equal in tokens,
    positions and queries are run once and lie side by side, bit for bit the same. A run that was
    killed goes on after its last finished shard and ends with the same bytes, if `token_budget` is
    the same.
    Raises UserError for prompts, positions or sites that the model does not have, for sites that
    are no vector per token, and for NaN or infinite states.
    """
    names_of_queries = [*([LAST_QUERY] if final_query_patterns else []), *(query_patterns or {})]
    wanted = _wanted(model, sites, layers, top_k, names_of_queries)
    if wanted.pattern_layers and isinstance(positions, str) and positions == "answer":
        raise UserError(
            "of a query's attention, only what it pays to the last token would be kept",
            where="final_query_patterns" if final_query_patterns else "query_patterns",
            remedy="keep positions='all' or the positions that it may look at",
        )
    packed = pack_prompts(prompts, positions, example_ids=example_ids, vocabulary=model.vocab_size)
    check_fits(model.module, int(packed.lengths.max(initial=0)))
    _check_columns(columns or {}, packed, example_ids)
    asked: dict[str, Any] = {LAST_QUERY: packed.lengths - 1} if final_query_patterns else {}
    asked.update(query_patterns or {})
    queries = pack_queries(asked, packed.lengths, example_ids=example_ids)
    firsts = packed.first_equal(queries)
    order = np.lexsort((firsts, -packed.lengths))
    together = firsts[order]
    fresh = np.diff(together, prepend=-1) != 0
    names = [example_ids[int(place)] for place in order]
    stored = dtype or _stored_type(model)
    plan = plan_store(
        names,
        packed.n_kept[order],
        _records(model, wanted, stored, pattern_dtype or stored),
        model_revision=model_revision,
        tokenizer_digest=tokenizer_digest,
        settings={
            "positions": positions if isinstance(positions, str) else "chosen",
            "tokens": packed.digest(),
            **({"queries": _digest(queries)} if query_patterns else {}),
        },
        columns=column_types,
        shard_tokens=shard_tokens,
        together=together,
    )
    types = {record.site: record.dtype for record in plan.sites}
    blocks = joining_blocks(model) if plan.n_prompts else None
    top = TopLogits(model.architecture, top_k) if top_k else None
    with (
        freed_pages_kept(),
        ActivationWriter(path, plan, provenance=provenance) as writer,
        fast_modules(model.module),
    ):
        remaining = writer.remaining()
        report = Progress(sum(map(len, remaining)), "activations", progress)
        lengths = packed.lengths[order]
        for places in equal_length_batches(remaining, lengths, token_budget, fresh):
            chosen = order[places.start : places.stop]
            once = chosen[fresh[places.start : places.stop]]
            ids, kept = packed.ids(once), packed.places(once)
            found = _run(
                model, blocks, ids, kept, packed.kept is None, queries[once], wanted, types, top
            )
            report.advance(len(chosen), ids.size)
            if len(once) < len(chosen):
                again = np.cumsum(fresh[places.start : places.stop]) - 1
                rows = _rows_of(again, packed.n_kept[once])
                found = {name: values[rows] for name, values in found.items()}
                ids, kept = packed.ids(chosen), packed.places(chosen)
            given = {
                name: list(chain.from_iterable(values[i] for i in chosen))
                for name, values in (columns or {}).items()
            }
            given |= {"token_position": kept[1], "token_id": ids[kept[0], kept[1]]}
            writer.append(names[places.start : places.stop], found, given)
    return plan.total_tokens


def _run(
    model: Model,
    blocks: Blocks | None,
    ids: NDArray[np.int64],
    kept: tuple[NDArray[np.int64], ...],
    every: bool,
    queries: NDArray[np.int32],
    wanted: Wanted,
    types: Mapping[str, str],
    top: TopLogits | None,
) -> dict[str, Any]:
    """What is stored of a batch: name -> values [token, width], in their storage type where that
    holds them."""
    found: dict[str, Any] = {}

    def put(name: str, values: Tensor) -> None:
        bits = to_stored(values, types[name])
        if not is_finite(bits, types[name]):
            found[name] = values.clone()  # the writer says what is wrong with them
        else:
            found[name] = bits.copy() if bits.ctypes.data == values.data_ptr() else bits

    rows, places, slots = (torch.from_numpy(part).to(model.device) for part in kept)
    batch = torch.from_numpy(ids).to(model.device)
    asked = torch.from_numpy(queries.astype(np.int64)).to(model.device)
    run_batch(
        model,
        blocks,
        batch,
        KeptPlaces(rows, places, slots, int(kept[1].min()), every, asked),
        wanted,
        put,
        top,
    )
    return found


def _wanted(
    model: Model,
    sites: Sequence[str | Site],
    layers: Sequence[int] | None,
    top_k: int,
    queries: Sequence[str],
) -> Wanted:
    """What is asked for, as sites of this model; refuses what it does not have."""
    chosen = tuple(range(model.n_layers) if layers is None else dict.fromkeys(layers))
    named: list[Site] = []
    for site in sites:
        if isinstance(site, Site):
            named.append(site)
        else:
            named += [Site(site, layer) for layer in ((0,) if site == "embed" else chosen)]
    for site in [*named, *(Site("pattern", layer) for layer in chosen if queries)]:
        model.check_site(site)
    if any(site.component == "pattern" for site in named):
        raise UserError(
            "whole attention patterns are not one vector per token",
            where="sites",
            remedy="use final_query_patterns=True for the last query's attention, or "
            "query_patterns for that of others",
        )
    if not 0 <= top_k <= model.vocab_size:
        raise UserError(f"there are no {top_k} largest of {model.vocab_size} logits", where="top_k")
    if len(set(queries)) < len(queries):
        raise UserError(
            f"the query {LAST_QUERY!r} is asked for twice",
            where="query_patterns",
            remedy="give it another name, or leave out final_query_patterns",
        )
    layers_of_patterns = chosen if queries else ()
    return Wanted(tuple(dict.fromkeys(named)), layers_of_patterns, tuple(queries), top_k)


def _records(model: Model, wanted: Wanted, dtype: str, pattern_dtype: str) -> list[SiteRecord]:
    records = [
        SiteRecord(str(site), width=model.architecture.width(site, 0), dtype=dtype)
        for site in wanted.sites
    ]
    records += [
        SiteRecord(pattern_name(query, layer), width=model.n_heads, dtype=pattern_dtype)
        for layer in wanted.pattern_layers
        for query in wanted.queries
    ]
    if wanted.top_k:
        records.append(SiteRecord(TOP_LOGITS, width=wanted.top_k))
        records.append(SiteRecord(TOP_IDS, width=wanted.top_k, dtype="int32"))
    return records


def _stored_type(model: Model) -> str:
    return str(model.dtype).removeprefix("torch.").replace("float64", "float32")


def _rows_of(prompts: NDArray[np.int64], n_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of these prompts, one after the other; prompt i has n_rows[i] of them."""
    starts, counts = (np.cumsum(n_rows) - n_rows)[prompts], n_rows[prompts]
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _digest(numbers: NDArray[np.int32]) -> str:
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def _check_columns(columns: Columns, packed: PackedPrompts, example_ids: Sequence[str]) -> None:
    for name, values in columns.items():
        if len(values) != len(packed.lengths):
            raise UserError(f"values for {len(values)} of {len(packed.lengths)} prompts",
                            where=f"column {name}")  # fmt: skip
        for i, expected in enumerate(packed.n_kept):
            if len(values[i]) != expected:
                raise UserError(f"{len(values[i])} values for {expected} kept tokens",
                                where=f"column {name}, example {example_ids[i]}")  # fmt: skip
