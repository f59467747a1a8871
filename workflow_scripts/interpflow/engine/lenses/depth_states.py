"""The residual stream of every depth, from one forward pass.

Depth d is the stream after d blocks: 0 is the embedding, and at the last depth, the number of
blocks, the stream is what the model's own norm and unembedding read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model, rotates_by_length
from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.engine.sites import Site

# States of all depths held at once by `depth_states`.
STATE_BYTES = 2**28


def depth_sites(model: Model) -> list[Site]:
    """The site of each depth, 0 to the number of blocks."""
    last = model.n_layers - 1
    return [*(Site("resid_pre", layer) for layer in range(last + 1)), Site("resid_post", last)]


def depth_states(
    model: Model, rows: Sequence[Sequence[int]], *, batch_tokens: int = DEFAULT_BATCH_TOKENS
) -> Iterator[RowStates]:
    """The states of each row of token ids, row after row, in batches of like length: not in the
    order of the rows.

    A pass holds at most `batch_tokens` places, and no more than `STATE_BYTES` of states. Raises
    UserError for tokens outside the vocabulary, rows that are too long, and states that are not
    finite.
    """
    per_token = (model.n_layers + 1) * model.d_model * 4
    budget = max(1, min(batch_tokens, STATE_BYTES // per_token))
    one_length = rotates_by_length(model.module)
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number))
    for batch in _batches([len(rows[number]) for number in order], budget, one_length):
        numbers = [order[place] for place in batch]
        with torch.no_grad(), fast_modules(model.module):
            found = model.capture([list(rows[number]) for number in numbers], depth_sites(model))
        stacked = torch.stack([found[site] for site in depth_sites(model)])
        for place, number in enumerate(numbers):
            yield RowStates(number, stacked[:, place, : len(rows[number])])


def _batches(lengths: Sequence[int], budget: int, one_length: bool) -> Iterator[list[int]]:
    """Places of falling lengths, together while they fit into `budget` padded tokens."""
    batch: list[int] = []
    for place, length in enumerate(lengths):
        if batch:
            longest = lengths[batch[0]]
            if (len(batch) + 1) * longest > budget or (one_length and longest != length):
                yield batch
                batch = []
        batch.append(place)
    if batch:
        yield batch


@dataclass(frozen=True, eq=False)
class RowStates:
    """states [depth, position, d_model] of the row `number`, in the model's type."""

    number: int
    states: Tensor
