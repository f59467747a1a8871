"""From the states before the vocabulary head to what a score needs of the logits.

Logits of the whole vocabulary are needed only for their normaliser and the most probable token, so
they are made in tiles of rows and columns that stay in a CPU's cache, reduced, and forgotten. Each
tile goes through the model's own forward, with the decoder left out and the head cut to the
columns: scales and caps on logits are the model's. `prove` finds out whether that is right.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPast

from interpflow.engine.passes.hooks import replaced_forwards
from interpflow.engine.passes.linear_kernels import chosen_kernel, linear

# A tile's logits are 4 MiB, and the weights it reads a few more.
TILE_ROWS, TILE_COLUMNS = 256, 4096
# Rows whose logits of the whole vocabulary are made at once.
WHOLE_ROWS = 256
# On other devices, and where the head cannot be cut: bytes of logits at once.
LOGIT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Reading:
    """What is read from the logits of rows of states.

    picked: float32 [row, n] logits of the tokens asked for; normaliser: float32 [row]
    logsumexp of all logits; top: int64 [row] the most probable token.
    """

    picked: Tensor
    normaliser: Tensor
    top: Tensor


def read_logits(logits: Tensor, tokens: Tensor) -> Reading:
    """Read logits [row, vocabulary] float32; tokens int64 [n]."""
    return Reading(logits[:, tokens], logits.logsumexp(dim=-1), logits.max(dim=-1).indices)


def joined(readings: Sequence[Reading]) -> Reading:
    """Readings of consecutive rows as one."""
    return Reading(
        torch.cat([reading.picked for reading in readings]),
        torch.cat([reading.normaliser for reading in readings]),
        torch.cat([reading.top for reading in readings]),
    )


class Readout:
    """The vocabulary head of a model, with whatever the model does to its logits afterwards.

    It does not keep the model alive.
    """

    def __init__(self, model: Any) -> None:
        self._model, self.head = weakref.ref(model), model.get_output_embeddings()
        found = _decoders(model)
        self.decoder = found[0] if found else None
        self.vocabulary = model.config.get_text_config().vocab_size

    @property
    def model(self) -> Any:
        """The model, which has to exist still."""
        model = self._model()
        if model is None:
            raise ReferenceError("the model of this readout is gone")
        return model

    def read(self, states: Tensor, tokens: Tensor) -> Reading:
        """Read the logits of states [row, d] before the head; tokens int64 [n]."""
        with self._logits() as logits:
            if self._may_be_cut(states):
                return self._read_tiles(states, tokens, logits)
            rows = max(1, LOGIT_BYTES // (4 * self.vocabulary))
            return joined(
                [read_logits(logits(part, slice(None)), tokens) for part in states.split(rows)]
            )

    def whole(self, states: Tensor) -> Iterator[Tensor]:
        """Logits of the whole vocabulary, float32 [some rows, vocabulary], of states [row, d] in
        turn: for what is read of each row by itself."""
        rows = max(1, min(WHOLE_ROWS, LOGIT_BYTES // (4 * self.vocabulary)))
        if not len(states):
            return
        with self._logits() as logits:
            for part in states.split(rows):
                yield logits(part, slice(None))

    def prove(self, states: Tensor, logits: Tensor, tolerance: float) -> bool:
        """Whether states [row, d] give these logits [row, vocabulary] float32, up to a tolerance
        in nats after normalisation."""
        if self.head is None:
            return False
        tokens = torch.arange(logits.shape[1], device=logits.device)
        for decoder in _decoders(self.model):
            self.decoder = decoder
            try:
                found = self.read(states, tokens)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
                continue
            if found.picked.shape == logits.shape:
                gap = (found.picked - found.normaliser[:, None]) - logits.log_softmax(dim=-1)
                if gap.abs().max().item() <= tolerance:
                    return True
        return False

    def _may_be_cut(self, states: Tensor) -> bool:
        head = self.head
        return (
            type(head) is nn.Linear
            and states.is_cpu
            and not head._forward_hooks
            and not head._forward_pre_hooks
            and len(head.weight) == self.vocabulary
        )

    def _read_tiles(
        self, states: Tensor, tokens: Tensor, logits: Callable[[Tensor, slice], Tensor]
    ) -> Reading:
        n_rows = len(states)
        picked = states.new_empty(n_rows, len(tokens), dtype=torch.float32)
        normalisers: list[Tensor] = []
        best = states.new_full((n_rows,), float("-inf"), dtype=torch.float32)
        top = torch.zeros(n_rows, dtype=torch.int64, device=states.device)
        for start in range(0, self.vocabulary, TILE_COLUMNS):
            columns = slice(start, min(start + TILE_COLUMNS, self.vocabulary))
            inside = ((tokens >= columns.start) & (tokens < columns.stop)).nonzero()[:, 0]
            here, parts = tokens[inside] - start, []
            for first in range(0, n_rows, TILE_ROWS):
                rows = slice(first, first + TILE_ROWS)
                tile = logits(states[rows], columns)
                if len(inside):
                    picked[rows, inside] = tile[:, here]
                highest = tile.amax(dim=-1)
                # Where the maximum lies costs more to find than the maximum.
                higher = (highest > best[rows]).nonzero()[:, 0]
                best[rows] = torch.maximum(best[rows], highest)
                top[first + higher] = tile[higher].max(dim=-1).indices + start
                shifted = tile.sub_(highest[:, None]).exp_()
                parts.append(shifted.sum(dim=-1).log_() + highest)
            normalisers.append(torch.cat(parts))
        return Reading(picked, torch.stack(normalisers).logsumexp(dim=0), top)

    @contextmanager
    def _logits(self) -> Iterator[Callable[[Tensor, slice], Tensor]]:
        """A function of (states [row, d], columns) -> logits [row, columns] float32."""
        given: list[Tensor] = []
        wanted = [slice(None)]
        whole = self.head.forward
        device = self.model.get_input_embeddings().weight.device
        ids = torch.zeros(1, 1, dtype=torch.int64, device=device)

        def decoder(*_args: Any, **_kwargs: Any) -> Any:
            return _Given(last_hidden_state=given[-1][:, None])

        def head(states: Tensor) -> Tensor:
            columns = wanted[-1]
            if columns == slice(None):
                return whole(states)
            bias = self.head.bias
            return _columns(
                states, self.head.weight[columns], None if bias is None else bias[columns]
            )

        def logits(states: Tensor, columns: slice) -> Tensor:
            given[:], wanted[:] = [states], [columns]
            found = self.model(input_ids=ids, use_cache=False).logits
            return found.reshape(len(states), -1).float()

        if self.decoder is None:
            raise AttributeError("the model has no decoder apart from its head")
        with replaced_forwards({self.decoder: decoder, self.head: head}):
            yield logits


def _decoders(model: Any) -> list[nn.Module]:
    """Modules whose output a model with a vocabulary head may hand to it."""
    base = model.base_model
    found = [base, getattr(base, "decoder", None)]
    return [part for part in found if isinstance(part, nn.Module) and part is not model]


class _Given(BaseModelOutputWithPast):
    """A decoder's output of which only the last states are known; anything else is None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _columns(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if states.is_cpu and states.dtype == weight.dtype == torch.float32:
        kernel = chosen_kernel(states.shape[:-1].numel(), weight.shape[1], weight.shape[0])
        return linear(kernel, states, weight, bias)
    return functional.linear(states, weight, bias)
