"""The states that a lens is trained on, captured once where memory allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interpflow.engine.lenses.depth_states import depth_states
from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.errors import UserError

# States of more documents than fit here are run anew whenever they are drawn.
POOL_BYTES = 2**29
# The first token has no context, and its state is often of another size than all others.
FIRST_PLACE = 1


class StatePool:
    """States of documents, token ids each, at every depth; the first token is left out.

    Documents of fewer than two tokens have no place and are left out; `n_documents` counts the
    others. Raises UserError when none is left.
    """

    def __init__(
        self,
        model: Model,
        documents: Sequence[Sequence[int]],
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        pool_bytes: int = POOL_BYTES,
    ) -> None:
        self.model, self.batch_tokens = model, batch_tokens
        self.documents = [list(ids) for ids in documents if len(ids) > FIRST_PLACE]
        if not self.documents:
            raise UserError(
                "no document to train a lens on has two tokens",
                where=f"{len(documents)} documents",
                remedy="give longer texts (layer_surgery.texts)",
            )
        n_places = sum(len(ids) - FIRST_PLACE for ids in self.documents)
        size = n_places * (model.n_layers + 1) * model.d_model * model.dtype.itemsize
        self._kept: dict[int, Tensor] | None = None
        if size <= pool_bytes:
            self._kept = self._run(range(self.n_documents))

    @property
    def n_documents(self) -> int:
        return len(self.documents)

    @property
    def is_kept(self) -> bool:
        """Whether every document was run once and for all."""
        return self._kept is not None

    def states(self, numbers: Sequence[int]) -> Tensor:
        """States [depth, place, d_model] of these documents, one after another."""
        kept = self._run(numbers) if self._kept is None else self._kept
        return torch.cat([kept[number] for number in numbers], dim=1)

    def _run(self, numbers: Sequence[int]) -> dict[int, Tensor]:
        rows = [self.documents[number] for number in numbers]
        return {
            numbers[found.number]: found.states[:, FIRST_PLACE:].clone()
            for found in depth_states(self.model, rows, batch_tokens=self.batch_tokens)
        }
