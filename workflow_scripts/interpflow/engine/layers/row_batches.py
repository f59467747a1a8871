"""Rows of several lengths in batches that waste little on padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from interpflow.engine.model import Model, rotates_by_length

# Below this many tokens, starting a pass costs more than a few padded places.
FEW_TOKENS = 256


def row_batches(lengths: Sequence[int], tokens_per_pass: int, model: Model) -> Iterator[list[int]]:
    """Numbers of rows of these lengths, shortest first, a batch of at most `tokens_per_pass`
    places (of one row at least) at a time.

    Rows of one length go together; others join them where that pads by an eighth at most, and only
    for models in which a row's length changes nothing before its end.
    """
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    alike = rotates_by_length(model.module)
    batch: list[int] = []
    for number in order:
        length = lengths[number]
        if batch:
            shortest = lengths[batch[0]]
            wide = length > shortest and (
                alike or (length * 8 > shortest * 9 and shortest * len(batch) >= FEW_TOKENS)
            )
            if wide or length * (len(batch) + 1) > tokens_per_pass:
                yield batch
                batch = []
        batch.append(number)
    if batch:
        yield batch


def padded(model: Model, rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids [row, position] on the model's device, padded on the right.

    Raises UserError for an empty row, a token outside the vocabulary and a row that is too long.
    """
    return model.batch([list(row) for row in rows]).input_ids
