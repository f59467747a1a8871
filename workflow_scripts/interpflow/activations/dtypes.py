"""Number types of stored tensors, and the way to them from NumPy arrays and torch tensors.

NumPy has no bfloat16: its bits are held as uint16. A float32 is widened from them exactly, and
rounded to them to the nearest, ties to even, as IEEE 754 does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.errors import UserError

_QUIET_NAN = np.uint16(0x7FC0)  # of bfloat16


def storage_type(name: str) -> StorageType:
    """The type named `name`. Raises UserError for one that cannot be stored."""
    if name not in STORAGE_TYPES:
        raise UserError(
            f"activations cannot be stored as {name!r}",
            where="dtype",
            remedy=f"use one of {', '.join(STORAGE_TYPES)}",
        )
    return STORAGE_TYPES[name]


def to_stored(values: Any, name: str) -> NDArray[Any]:
    """The bits of `values` (NumPy array or torch tensor of any shape) in storage type `name`.

    Floats are rounded to the type; one too large for it becomes infinite (see `is_finite`).
    uint16 is taken for the bits of bfloat16. Copies only where the type or the layout demands it.
    Raises ValueError when floats would become integers or the other way round.
    """
    kind = storage_type(name)
    if hasattr(values, "detach"):
        return _from_torch(values.detach(), kind)
    array = np.asarray(values)
    if name == "bfloat16":
        bits = array if array.dtype == np.uint16 else _round_to_bfloat16(_floats(array, name))
        return np.ascontiguousarray(bits)
    if kind.is_float:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(_floats(array, name), dtype=kind.bits)
    if array.dtype.kind not in "iu":
        raise ValueError(f"values of type {array.dtype} cannot be stored as {name}")
    limits = np.iinfo(kind.bits)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise ValueError(f"integers outside {limits.min} to {limits.max}")
    return np.ascontiguousarray(array, dtype=kind.bits)


def is_finite(bits: NDArray[Any], name: str) -> bool:
    """Whether bits of storage type `name` hold neither NaN nor an infinity."""
    kind = STORAGE_TYPES[name]
    if not kind.exponent or not bits.size:
        return True
    if kind.bits.itemsize > 2:
        return bool(np.isfinite(bits).all())
    # All ones in the exponent is NaN or infinite: several times faster than isfinite on float16.
    return int((bits.view(np.uint16) & np.uint16(kind.exponent)).max()) != kind.exponent


def to_float32(bits: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Bits of a floating storage type as float32, exactly; a float32 array is returned as it is."""
    if name == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.astype(np.float32, copy=False)


def _floats(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype.kind != "f":
        raise ValueError(f"values of type {array.dtype} cannot be stored as {name}")
    return array


def _round_to_bfloat16(array: NDArray[Any]) -> NDArray[np.uint16]:
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    # Half of the last kept bit, minus one unless that bit is odd: ties go to even.
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), _QUIET_NAN, rounded)


def _from_torch(tensor: Any, kind: StorageType) -> NDArray[Any]:
    import torch  # the tensor came from it, so it is loaded

    if tensor.is_floating_point() != kind.is_float:
        raise ValueError(f"values of type {tensor.dtype} cannot be stored as {kind.name}")
    if not kind.is_float:
        return to_stored(tensor.cpu().numpy(), kind.name)
    # Narrowed where it is, so that less has to cross from an accelerator.
    tensor = tensor.to(dtype=getattr(torch, kind.name)).cpu().contiguous()
    if kind.name == "bfloat16":
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


@dataclass(frozen=True)
class StorageType:
    """`code` names the type in a safetensors header; `bits` is how NumPy holds it; `exponent` is
    the mask of the exponent's bits, 0 for integers."""

    name: str
    code: str
    bits: np.dtype[Any]
    exponent: int

    @property
    def is_float(self) -> bool:
        return self.exponent != 0


STORAGE_TYPES = {
    kind.name: kind
    for kind in (
        StorageType("float32", "F32", np.dtype("<f4"), 0x7F800000),
        StorageType("float16", "F16", np.dtype("<f2"), 0x7C00),
        StorageType("bfloat16", "BF16", np.dtype("<u2"), 0x7F80),
        StorageType("int32", "I32", np.dtype("<i4"), 0),
    )
}
