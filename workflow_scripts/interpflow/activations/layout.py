"""Where each tensor of a shard lies: the safetensors header, the same for writer and reader.

A safetensors file is the header's length (uint64, little-endian), the header (JSON, padded with
spaces), and the tensors' bytes without gaps. https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.activations.sites import SiteRecord

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 64  # bytes, of the first tensor in the file: a cache line
PLAN_KEY = "interpflow_plan"


def shard_layout(
    sites: Sequence[SiteRecord], n_tokens: int, n_prompts: int, plan_digest: str
) -> ShardLayout:
    """Lay out a shard. Wider number types come first, so that every tensor is aligned."""
    header: dict[str, Any] = {"__metadata__": {PLAN_KEY: plan_digest}}
    relative: dict[str, int] = {}
    end = 0
    for record in sorted(sites, key=lambda record: -record.storage.bits.itemsize):
        n_rows = n_tokens if record.per == "token" else n_prompts
        relative[record.site], begin = end, end
        end += n_rows * record.row_bytes
        header[record.site] = {
            "dtype": record.storage.code,
            "shape": [n_rows, record.width],
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    text += b" " * (-(_LENGTH.size + len(text)) % _ALIGNMENT)
    start = _LENGTH.size + len(text)
    return ShardLayout(
        header=_LENGTH.pack(len(text)) + text,
        offsets={site: start + begin for site, begin in relative.items()},
        n_bytes=start + end,
    )


@dataclass(frozen=True)
class ShardLayout:
    """`header` are the file's first bytes; `offsets` site → byte where its tensor begins."""

    header: bytes
    offsets: dict[str, int]
    n_bytes: int
