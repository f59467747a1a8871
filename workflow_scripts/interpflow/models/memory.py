"""Whether a model fits in memory, estimated from its files before anything is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from interpflow.errors import UserError
from interpflow.models.files import read_config

# Bytes of one number in memory.
ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
FLOATS = ("F64", "F32", "F16", "BF16")
STORED_BYTES = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
# Token places of one forward pass, and logit rows at a time, as the engine and inference run them.
BATCH_TOKENS, LOGIT_ROWS = 4096, 256
# A block holds about this many states of the residual's width at once (input, norm, queries, keys,
# values, attention and MLP outputs), and three of the MLP's width (gate, up, their product).
STREAM_STATES, MLP_STATES = 8, 3
# What the interpreter and torch need beside the model.
RUNTIME_BYTES = 512 * 2**20
CGROUP = Path("/sys/fs/cgroup")


def check_fits_memory(directory: Path, name: str, dtype: str, device: str) -> None:
    """Raise UserError, naming both numbers, when the model and one batch would not fit.

    On a CUDA device the weights pass through main memory on their way, so both are checked.
    """
    weights = weight_bytes(directory, dtype)
    batch = batch_bytes(read_config(directory, f"model {name}"), dtype)
    if device.startswith("cuda"):
        import torch

        _refuse(weights + RUNTIME_BYTES, available_memory(), "main memory", name, dtype)
        free, _ = torch.cuda.mem_get_info(device)
        _refuse(weights + batch, free, f"memory of {device}", name, dtype)
        return
    _refuse(weights + batch + RUNTIME_BYTES, available_memory(), "main memory", name, dtype)


def weight_bytes(directory: Path, dtype: str) -> int:
    """Bytes of the weights in memory when floating-point numbers are held as `dtype`; what is
    shared between modules is stored, and counted, once."""
    total = 0
    for path in weight_files(directory):
        for tensor in _header(path).values():
            count = 1
            for size in tensor["shape"]:
                count *= size
            stored = str(tensor["dtype"])
            total += count * (
                ITEM_BYTES[dtype] if stored in FLOATS else STORED_BYTES.get(stored, 1)
            )
    return total


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checked model directory."""
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return [directory / "model.safetensors"]
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [directory / str(shard) for shard in sorted(shards)]


def batch_bytes(config: dict[str, Any], dtype: str) -> int:
    """Bytes that one forward pass holds beside the weights: states of a block, keys and values of
    all, logits of the rows that are read. An estimate: kernels add their own."""
    config = {**config, **config.get("text_config", {})}
    width = int(_first(config, "hidden_size", "n_embd", "d_model") or 0)
    layers = int(_first(config, "num_hidden_layers", "n_layer", "num_layers") or 0)
    mlp = int(_first(config, "intermediate_size", "n_inner", "ffn_dim") or 4 * width)
    vocabulary = int(config.get("vocab_size") or 0)
    states = BATCH_TOKENS * (STREAM_STATES * width + MLP_STATES * mlp + 2 * layers * width)
    return states * ITEM_BYTES[dtype] + LOGIT_ROWS * vocabulary * ITEM_BYTES["float32"]


def available_memory() -> int:
    """Bytes of main memory that this process may still take: the machine's, or its container's if
    that has less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    if limit == "max":
        return free
    # Pages of files are given back when memory is short.
    return min(free, int(limit) - used + int(stat.get("inactive_file", 0)))


def _first(config: dict[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name)), None)


def _header(path: Path) -> dict[str, Any]:
    """Name -> dtype, shape and place of each tensor of a safetensors file."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError(f"its header would be {length} bytes long")
            header = json.loads(file.read(length))
        return {key: value for key, value in header.items() if key != "__metadata__"}
    except (OSError, ValueError, struct.error, AttributeError) as error:
        raise UserError(
            f"the weights are damaged and cannot be loaded: {error}",
            where=str(path),
            remedy="complete the download, or save the model again",
        ) from error


def _refuse(needed: int, free: int, what: str, name: str, dtype: str) -> None:
    if needed > free:
        raise UserError(
            f"the model needs about {needed / 1e9:.1f} GB in {dtype}, {what} has "
            f"{free / 1e9:.1f} GB free",
            where=f"model {name}",
            remedy="use a smaller model or a narrower dtype (bfloat16), or a larger machine",
        )
