"""The cheapest exact ways to score answers with a model, proven once and remembered with it.

A proof is repeated when anything it may depend on has changed: weights, types, devices, the
configuration. It is not remembered while hooks or forwards of others are on the model, for what
these do can change without notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from interpflow.inference.forward import (
    find_tree,
    packing_is_exact,
    readout_is_exact,
    sharing_is_exact,
)
from interpflow.inference.readout import Readout
from interpflow.inference.tree_forward import TreeForward

# What a proof was made on, as `_fingerprint` gives it.
Fingerprint = tuple[Any, ...]


def known_ways(model: Any) -> ExactWays:
    """The ways of a model, remembered or new; call it before forwards are exchanged."""
    print_ = _fingerprint(model)
    known = _KNOWN.get(model)
    if known is not None and print_ is not None and known.fingerprint == print_:
        return known
    ways = ExactWays(print_)
    if print_ is None:
        _KNOWN.pop(model, None)
    else:
        _KNOWN[model] = ways
    return ways


@dataclass
class ExactWays:
    """What has been proven so far, each on the probe batch when it is first asked for.

    Holds parts of the model, never the model itself, which could then not be freed.
    """

    fingerprint: Fingerprint | None
    _readout: Readout | None = None
    _by_states: bool = False
    _tree: TreeForward | None = None
    _proven: dict[str, bool] = field(default_factory=dict)

    def find(self, model: Any) -> tuple[Readout, bool, TreeForward | None]:
        """The vocabulary head, whether it may be given states in tiles, and the answer tree."""
        if self._readout is None:
            readout = Readout(model)
            self._by_states = readout_is_exact(model, readout)
            self._tree = find_tree(model, readout) if self._by_states else None
            self._readout = readout
        return self._readout, self._by_states, self._tree

    def shares(self) -> bool:
        """Whether shared beginnings may be run once."""
        return self._holds("sharing", sharing_is_exact)

    def packs(self) -> bool:
        """Whether rows may be run without padding."""
        return self._holds("packing", packing_is_exact)

    def _holds(self, what: str, proof: Any) -> bool:
        if self._tree is None or self._readout is None:
            return False
        if what not in self._proven:
            self._proven[what] = proof(self._tree, self._readout)
        return self._proven[what]


def _fingerprint(model: Any) -> Fingerprint | None:
    for part in model.modules():
        if part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__:
            return None
    weights = list(chain(model.parameters(), model.buffers()))
    if any(weight.is_inference() for weight in weights):
        return None  # their changes are not counted
    versions = tuple((w.data_ptr(), w._version, w.dtype, w.device) for w in weights)
    parts = tuple(type(part) for part in model.modules())
    return versions, parts, model.config._attn_implementation, model.config.to_json_string()


_KNOWN: WeakKeyDictionary[nn.Module, ExactWays] = WeakKeyDictionary()
