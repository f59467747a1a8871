"""interpflow's activation dump."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.activations import open_store
from interpflow.engine import load
from interpflow.inference.activation_dump import dump_activations
from interpflow.studies.robustness.answers.token_roles import ROLES, PackedColumn
from tests.benchmarks.job import Job, Part, Place
from tests.benchmarks.peers.plain_dumps import folder_bytes, n_tokens, read_milliseconds
from tests.benchmarks.peers.plain_hooks import load_model
from tests.benchmarks.shapes import scratch
from tests.benchmarks.works import DumpWork


def dump(work: DumpWork, place: Place) -> Job:
    """One call of `dump_activations` with its own batch size; checks and digests included."""
    source = place.directory or load_model(work, place)
    model = load(source, device=place.device, dtype=place.dtype)
    # As a table of numbers: as lists, the prompts of the largest work would outweigh the dump.
    prompts = np.array(work.prompts(), dtype=np.int32)
    names = [f"{i:06d}" for i in range(work.n_prompts)]
    kind = f"interpflow-{work.n_prompts}-{work.queries}"
    target = scratch() / "dumps" / work.shape.name / kind
    queries = {
        f"number{i}": np.full(work.n_prompts, (i + 1) * work.length // (work.queries + 2), np.int32)
        for i in range(work.queries)
    }
    columns = token_columns(work) if work.queries else None

    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)  # a finished store would not be written again
        dump_activations(
            model,
            prompts,  # type: ignore[arg-type]
            target,
            example_ids=names,
            dtype="float16",
            top_k=work.top,
            final_query_patterns=True,
            query_patterns=queries,  # type: ignore[arg-type]
            columns=columns,
            column_types={"word": pa.int32()} if columns else None,
        )

    def facts() -> dict[str, Any]:
        store = open_store(target, verify="size")
        layer = f"resid_post.L{work.shape.n_layers // 2 - 1}"
        for name in names:  # files are mapped when first read, once per store and site
            store.read(layer, name)
        return {
            "tokens": n_tokens(work),
            "bytes_per_token": folder_bytes(target) // n_tokens(work),
            "read_ms": read_milliseconds(
                lambda i: store.read(layer, names[i % work.n_prompts]).copy()
            ),
        }

    def values() -> np.ndarray:
        """The first batch, [prompt, layer, position, d], what enters each block."""
        store = open_store(target, verify="size")
        layers = ["embed", *(f"resid_post.L{i}" for i in range(work.shape.n_layers - 1))]
        states = [[store.read(site, name) for site in layers] for name in names[: work.batch]]
        return np.asarray(states, dtype=np.float32)

    return Job([Part("dump", run)], values, facts=facts)


def token_columns(work: DumpWork) -> dict[str, PackedColumn]:
    """What each token is for, as the robustness study says it: packed, all prompts alike."""
    n_tokens = work.n_prompts * work.length
    starts = np.arange(work.n_prompts + 1) * work.length
    places = np.tile(np.arange(work.length, dtype=np.int32), work.n_prompts)
    return {
        "role": PackedColumn((places % len(ROLES)).astype(np.int8), starts, ROLES),
        "word": PackedColumn(np.full(n_tokens, -1, np.int32), starts),
        "char_start": PackedColumn(places * 5, starts, nullable=True),
        "char_end": PackedColumn(places * 5 + 4, starts, nullable=True),
    }
