"""How a model's sweeps are run, proven once per model."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from interpflow.engine.model import Model
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.proofs.blocks_proof import prove_blocks

_PROVEN: WeakKeyDictionary[Model, Blocks | str] = WeakKeyDictionary()


def joining_blocks(model: Model) -> Blocks | None:
    """The model's blocks, if they are proven to run one at a time."""
    found = _proven(model)
    return found if isinstance(found, Blocks) else None


def why_whole(model: Model) -> str | None:
    """The reason why sweeps on this model run whole passes; None when they do not."""
    found = _proven(model)
    return found if isinstance(found, str) else None


def _proven(model: Model) -> Blocks | str:
    if model not in _PROVEN:
        _PROVEN[model] = prove_blocks(model)
    return _PROVEN[model]
