"""A small store of every kind of site, its values known from prompt and token alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.activations import ActivationWriter, SiteRecord, WritePlan, plan_store
from interpflow.tables.provenance import Provenance

SITES = (
    SiteRecord("embed", width=3),
    SiteRecord("resid_post.L0", width=5, dtype="float16"),
    SiteRecord("resid_post.L1", width=5, dtype="bfloat16"),
    SiteRecord("top_ids", width=2, dtype="int32", per="prompt"),
    SiteRecord("top_logits", width=2, per="prompt", allow_nonfinite=True),
)
LENGTHS = (4, 1, 6, 3, 2, 5, 5, 1, 7, 2, 3, 4)
SHARD_TOKENS = 9  # makes several shards of several prompts


def ids(prompts: Iterable[int] = range(len(LENGTHS))) -> list[str]:
    return [f"example-{prompt:02d}" for prompt in prompts]


def plan(lengths: Sequence[int] = LENGTHS, **changes: Any) -> WritePlan:
    settings = {"shard_tokens": SHARD_TOKENS, "columns": {"word": pa.int32()},
                "model_revision": "abc", "tokenizer_digest": "def"}  # fmt: skip
    return plan_store(ids(range(len(lengths))), lengths, SITES, **(settings | changes))


def values(site: SiteRecord, prompt: int) -> np.ndarray:
    """float32 [rows, width], exact in every storage type: small multiples of 1/4."""
    n_rows = LENGTHS[prompt] if site.per == "token" else 1
    drawn = np.random.default_rng([prompt, *site.site.encode()])
    whole = drawn.integers(-120, 120, size=(n_rows, site.width))
    return whole.astype(np.int64) if site.dtype == "int32" else (whole / 4).astype(np.float32)


def tensors(prompts: Sequence[int]) -> dict[str, Any]:
    return {site.site: np.concatenate([values(site, p) for p in prompts]) for site in SITES}


def columns(prompts: Sequence[int]) -> dict[str, Any]:
    places = [(p, k) for p in prompts for k in range(LENGTHS[p])]
    return {
        "token_position": [10 + k for _, k in places],
        "token_id": np.array([100 * p + k for p, k in places]),
        "char_start": [3 * k for _, k in places],
        "char_end": [3 * k + 2 for _, k in places],
        "role": ["answer" if k == LENGTHS[p] - 1 else "word" for p, k in places],
        "word": [k for _, k in places],
    }


def append(writer: ActivationWriter, prompts: Sequence[int]) -> None:
    writer.append(ids(prompts), tensors(prompts), columns(prompts))


def write(
    path: Path,
    batches: Iterable[Sequence[int]] = (range(len(LENGTHS)),),
    provenance: Provenance | None = None,
    **changes: Any,
) -> Path:
    with ActivationWriter(path, plan(**changes), provenance=provenance) as writer:
        for batch in batches:
            append(writer, list(batch))
    return path


def contents(directory: Path) -> dict[str, bytes]:
    """Relative path → bytes of every file."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
