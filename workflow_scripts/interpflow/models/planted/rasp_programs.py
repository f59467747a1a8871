"""Two RASP programs compiled by hand into Tracr's layout: `frac_prevs` and `shift_by_one`.

Every value of a categorical variable is one residual direction ("tokens:a", "indices:3"), every
numerical variable is one direction, "one" is 1 everywhere. A selector is a head whose attention
logit is COLDNESS where the relation holds and 0 elsewhere; the start token gets COLDNESS/2, so that
it is attended to where nothing is selected, and gives 0 there. Differing from Tracr, queries undo
the division by √key_size, so that what is not selected gets e⁻⁵⁰ or less whatever the key size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpflow.models.planted.tracr_weights import BOS, TracrMeta, TracrWeights

Array = NDArray[np.float64]

COLDNESS = 100.0
ONE = "one"


def frac_prevs(token: str, vocabulary: Sequence[str], max_length: int) -> TracrWeights:
    """Share of `token` among the tokens up to and with each position (0 at the start token).

    RASP: aggregate(select(indices, indices, ≤), tokens == token). The MLP of layer 0 computes the
    comparison, head 0 of layer 1 the mean; all else is 0. One output, a number.
    """
    is_token, share = f"tokens=={token}", "frac_prevs"
    space = _space(vocabulary, max_length, [is_token, share])
    compare = Mapped({f"tokens:{token}": is_token})
    average = Selector("indices", "indices", lambda query, key: key <= query, {is_token: share})
    return _assembled(space, [([], compare), ([average], None)], outputs=[share])


def shift_by_one(vocabulary: Sequence[str], max_length: int) -> TracrWeights:
    """The token before each position; nothing (all outputs 0) at the first token and the start.

    RASP: aggregate(select(indices, indices, key == query − 1), tokens). Head 0 of the only layer
    does it; all else is 0. One output per token of the vocabulary.
    """
    outputs = [f"shift_by_one:{token}" for token in vocabulary]
    space = _space(vocabulary, max_length, outputs)
    values = {f"tokens:{token}": out for token, out in zip(vocabulary, outputs)}
    previous = Selector("indices", "indices", lambda query, key: key == query - 1, values)
    return _assembled(space, [([previous], None)], outputs=outputs)


def _space(vocabulary: Sequence[str], max_length: int, variables: Sequence[str]) -> Space:
    tokens = (*vocabulary, BOS)
    indices = [f"indices:{i}" for i in range(max_length)]
    return Space(tokens, max_length, (ONE, *(f"tokens:{t}" for t in tokens), *indices, *variables))


def _assembled(
    space: Space, blocks: Sequence[tuple[Sequence[Selector], Mapped | None]], outputs: Sequence[str]
) -> TracrWeights:
    """Arrays of all blocks; as in Tracr, heads and MLPs that are not used are filled with 0. There
    is always one head more than any block uses."""
    n_heads = 1 + max(len(heads) for heads, _ in blocks)
    key_size = max(space.max_length + 1, len(space.tokens))
    hidden = max([1, *(len(mlp.values) for _, mlp in blocks if mlp is not None)])
    width = len(space.labels)
    arrays: dict[str, Array] = {
        "token_embed": np.array([space.row(ONE, f"tokens:{t}") for t in space.tokens]),
        # The start stands at position 0 and has no index.
        "pos_embed": np.array(
            [np.zeros(width), *(space.row(f"indices:{i}") for i in range(space.max_length))]
        ),
        "unembed": np.array([space.row(label) for label in outputs]).T,
    }
    for layer, (heads, mlp) in enumerate(blocks):
        name = f"blocks.{layer}"
        parts = {part: np.zeros((n_heads, width, key_size)) for part in ("query", "key", "value")}
        linear = np.zeros((n_heads, key_size, width))
        for head, selector in enumerate(heads):
            query, key, value, out = selector.weights(space, key_size)
            parts["query"][head], parts["key"][head], parts["value"][head] = query, key, value
            linear[head] = out
        for part, per_head in parts.items():
            arrays[f"{name}.attn.{part}.w"] = per_head.transpose(1, 0, 2).reshape(width, -1)
            arrays[f"{name}.attn.{part}.b"] = np.zeros(n_heads * key_size)
        arrays[f"{name}.attn.linear.w"] = linear.reshape(-1, width)
        arrays[f"{name}.attn.linear.b"] = np.zeros(width)
        first, second = np.zeros((width, hidden)), np.zeros((hidden, width))
        for unit, (source, target) in enumerate(mlp.values.items() if mlp is not None else ()):
            first[:, unit], second[unit] = space.row(source), space.row(target)
        arrays[f"{name}.mlp.linear_1.w"], arrays[f"{name}.mlp.linear_1.b"] = first, np.zeros(hidden)
        arrays[f"{name}.mlp.linear_2.w"], arrays[f"{name}.mlp.linear_2.b"] = second, np.zeros(width)
    meta = TracrMeta(n_heads, key_size, space.tokens, space.labels, tuple(outputs))
    return TracrWeights(arrays, meta)


@dataclass(frozen=True)
class Space:
    """The residual stream of a program: its directions by name."""

    tokens: tuple[str, ...]
    max_length: int
    labels: tuple[str, ...]

    def row(self, *names: str) -> Array:
        """1 in the named directions, 0 elsewhere, [d]."""
        return np.array([float(label in names) for label in self.labels])

    def values(self, variable: str) -> list[str]:
        """Directions of a categorical variable."""
        return [label for label in self.labels if label.startswith(f"{variable}:")]


@dataclass(frozen=True, eq=False)
class Mapped:
    """An MLP that writes 1 into a direction where another one is 1; source -> target."""

    values: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Selector:
    """A head that attends alike to all positions whose `keys` value is in `relation(query, key)` to
    the own `queries` value (integers), and writes their mean of each source into its target."""

    queries: str
    keys: str
    relation: Callable[[int, int], bool]
    values: Mapping[str, str]

    def weights(self, space: Space, key_size: int) -> tuple[Array, Array, Array, Array]:
        """query, key, value [d, key_size] and linear [key_size, d]."""
        width = len(space.labels)
        query, key, value = (np.zeros((width, key_size)) for _ in range(3))
        linear = np.zeros((key_size, width))
        for slot, seen in enumerate(space.values(self.keys)):
            key[:, slot] = space.row(seen)
            for own in space.values(self.queries):
                if self.relation(*(int(name.partition(":")[2]) for name in (own, seen))):
                    query[:, slot] += COLDNESS * space.row(own)
        start = len(space.values(self.keys))
        key[:, start] = space.row(f"tokens:{BOS}")
        query[:, start] = COLDNESS / 2 * space.row(ONE)
        for slot, (source, target) in enumerate(self.values.items()):
            value[:, slot], linear[slot] = space.row(source), space.row(target)
        return query * key_size**0.5, key, value, linear
