"""What is read from the logits at scored places, beside those of the intact model.

Logits are made a tile of rows at a time, in the same memory, reduced to a few numbers for each
place while they lie in a CPU's cache, and forgotten. The intact model is read in the same way as
every plan, so that what differs from it by nothing differs by exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interpflow.engine.model import Model, full_precision
from interpflow.engine.passes.linear_kernels import chosen_kernel, linear

# A tile's logits are at most so many bytes (they stay in cache), but have so many rows at least.
TILE_BYTES, MIN_TILE_ROWS = 4 * 2**20, 64
DEVICE_TILE_BYTES = 256 * 2**20  # on other devices than a CPU
# The intact model's probabilities of one batch are kept while its plans are read.
KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True, eq=False)
class Readings:
    """Of each scored place, float64 [place]: log_prob of the target token (nats); kl(intact ‖ plan)
    over the whole vocabulary (nats); top1_kept, 1 where the intact model's most probable token is
    the most probable one still; rank, mid-rank of the target, 1 for the only most probable token.
    """

    log_prob: Tensor
    kl: Tensor
    top1_kept: Tensor
    rank: Tensor

    @property
    def stacked(self) -> Tensor:
        """[4, place], in the order of the fields."""
        return torch.stack([self.log_prob, self.kl, self.top1_kept, self.rank])


def places_at_once(model: Model) -> int:
    """Scored places of a batch for which the intact model's probabilities are kept in memory."""
    return max(1, KEPT_BYTES // (4 * model.vocab_size))


class PlaceReader:
    """Reads states of a batch of places, whatever the plan, against those of the intact model.

    intact: states [place, d_model] before the final norm; targets: int64 [place].
    """

    def __init__(self, model: Model, intact: Tensor, targets: Tensor) -> None:
        self.intact, self._model, self._targets = intact, model, targets.to(intact.device)
        self._tiles: list[_IntactTile] = []
        n_bytes = TILE_BYTES if intact.is_cpu else DEVICE_TILE_BYTES
        self._n_rows = max(MIN_TILE_ROWS, n_bytes // (4 * model.vocab_size))
        self._room: Tensor | None = None
        with torch.no_grad():
            for rows in intact.split(self._n_rows):
                logits = self._logits(rows)
                top = logits.max(dim=-1).indices
                probabilities = logits.softmax(dim=-1)
                own = _expected(probabilities, logits) - _normaliser(logits)
                self._tiles.append(_IntactTile(probabilities, own, top))

    def read(self, states: Tensor) -> Readings:
        """Readings of the states [place, d_model] of a plan at the same places."""
        parts: list[Readings] = []
        with torch.no_grad():
            for rows, targets, tile in zip(
                states.split(self._n_rows), self._targets.split(self._n_rows), self._tiles
            ):
                parts.append(_read(self._logits(rows), targets, tile))
        return Readings(
            *(torch.cat([getattr(part, name) for part in parts])
              for name in ("log_prob", "kl", "top1_kept", "rank"))
        )  # fmt: skip

    def probabilities(self, states: Tensor, places: Sequence[int]) -> Tensor:
        """Probabilities [n, vocab] of states [place, d_model] at some of the places."""
        chosen = states[list(places)].split(self._n_rows)
        with torch.no_grad():
            return torch.cat([self._logits(rows).softmax(dim=-1) for rows in chosen])

    def _logits(self, states: Tensor) -> Tensor:
        """Logits [row, vocab], float32 at least, in memory that the next call uses again."""
        architecture = self._model.architecture
        head: Any = architecture.unembedding
        cut = (
            type(head) is nn.Linear
            and states.is_cpu
            and states.dtype == head.weight.dtype == torch.float32
            and not head._forward_hooks
            and not head._forward_pre_hooks
        )
        if not cut:
            return full_precision(architecture.unembed(states))
        normalized = architecture.normalized(states)
        kernel = chosen_kernel(len(states), head.weight.shape[1], len(head.weight))
        if kernel != "plain":
            return architecture.scaled(linear(kernel, normalized, head.weight, head.bias))
        if self._room is None:
            self._room = states.new_empty(self._n_rows, len(head.weight))
        room = self._room[: len(states)]
        if head.bias is None:
            torch.mm(normalized, head.weight.t(), out=room)
        else:
            torch.addmm(head.bias, normalized, head.weight.t(), out=room)
        return architecture.scaled(room)


@dataclass(frozen=True, eq=False)
class _IntactTile:
    """probabilities [row, vocab]; own: their expected log-probability [row]; top: int64 [row]."""

    probabilities: Tensor
    own: Tensor
    top: Tensor


def _read(logits: Tensor, targets: Tensor, tile: _IntactTile) -> Readings:
    """Readings of one tile; the logits [row, vocab] are used up.

    KL(p ‖ q) = E_p[log p] − E_p[z_q] + log Σ exp z_q.
    """
    target = logits.gather(1, targets[:, None])
    expected = _expected(tile.probabilities, logits)
    top = logits.gather(1, tile.top[:, None])[:, 0]
    highest = logits.amax(dim=-1)
    # The count of larger logits less that of smaller ones: exact in float32 below 2^24 tokens.
    balance = torch.sub(logits, target).sign_().sum(dim=-1)
    normaliser = logits.sub_(highest[:, None]).exp_().sum(dim=-1).log_() + highest
    kl = tile.own - (expected - normaliser)
    return Readings(
        log_prob=(target[:, 0] - normaliser).double(),
        # Rounding alone makes it negative.
        kl=kl.clamp_(min=0).double(),
        top1_kept=(top >= highest).double(),
        rank=(balance.double() + logits.shape[1] + 1) / 2,
    )


def _expected(probabilities: Tensor, values: Tensor) -> Tensor:
    return torch.linalg.vecdot(probabilities, values)


def _normaliser(logits: Tensor) -> Tensor:
    """As in `_read`, step by step, so that equal logits give equal numbers."""
    highest = logits.amax(dim=-1)
    return (logits - highest[:, None]).exp_().sum(dim=-1).log_() + highest
