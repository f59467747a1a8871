"""What lenses read at every depth, compared with what the model says in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from interpflow.engine.model import Model, full_precision

# Logits held at once: rows of them that stay in a CPU's cache, and never more than 64 MiB.
ROWS_AT_ONCE = 256
LOGITS_AT_ONCE = 2**24


class Lens(Protocol):
    """What prepares a depth's states for the model's norm and unembedding."""

    def translated(self, depth: int, states: Tensor, /) -> Tensor: ...


def read_lenses(
    model: Model, lenses: Mapping[str, Lens], states: Tensor, targets: Tensor | None = None
) -> dict[str, Readings]:
    """Read states [depth, n, d_model] of all depths, the last one included, through each lens.

    targets: int64 [n], the tokens that follow; `loss` is NaN without. At the last depth every lens
    is the model itself, so KL is exactly 0 there. Nats.
    """
    n_depths, n, _ = states.shape
    if n_depths != model.n_layers + 1:
        raise ValueError(f"{n_depths} depths of a model of {model.n_layers} blocks")
    rows = max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // model.vocab_size))
    parts: dict[str, list[Readings]] = {name: [] for name in lenses}
    for start in range(0, max(n, 1), rows):
        here = slice(start, start + rows)
        aims = None if targets is None else targets[here].to(states.device)
        final = full_precision(model.unembed(states[-1, here])).log_softmax(dim=-1)
        probabilities, top = final.exp(), final.argmax(dim=-1)
        last = _reading(final, final, probabilities, top, aims)
        for name, lens in lenses.items():
            found = [
                _reading(
                    full_precision(model.unembed(lens.translated(depth, states[depth, here])))
                    .log_softmax(dim=-1),
                    final, probabilities, top, aims,
                )
                for depth in range(n_depths - 1)
            ]  # fmt: skip
            parts[name].append(_stacked([*found, last]))
    return {name: _joined(found) for name, found in parts.items()}


def _reading(
    log_q: Tensor, final: Tensor, probabilities: Tensor, top: Tensor, targets: Tensor | None
) -> Readings:
    """Of one depth; every field [n]."""
    best = log_q.max(dim=-1)
    own = log_q.gather(1, top[:, None])
    larger = (log_q > own).sum(dim=-1)
    equal = (log_q == own).sum(dim=-1) - 1
    if targets is None:
        loss = torch.full_like(best.values, float("nan"))
    else:
        loss = -log_q.gather(1, targets[:, None])[:, 0]
    return Readings(
        kl=(probabilities * (final - log_q)).sum(dim=-1).clamp_min(0.0),
        top=best.indices,
        probability=best.values.exp(),
        entropy=-(log_q.exp() * log_q).sum(dim=-1),
        loss=loss,
        final_probability=own[:, 0].exp(),
        final_rank=1.0 + larger + equal / 2,
    )


def _stacked(depths: list[Readings]) -> Readings:
    return Readings(
        *(torch.stack([getattr(one, f.name) for one in depths]) for f in fields(Readings))
    )


def _joined(parts: list[Readings]) -> Readings:
    return Readings(
        *(torch.cat([getattr(one, f.name) for one in parts], dim=1).cpu() for f in fields(Readings))
    )


@dataclass(frozen=True, eq=False)
class Readings:
    """Of one lens, each field [depth, n] on the CPU.

    kl: KL(model ‖ lens); top: int64, the most probable token, of `probability`; entropy of the
    lens; loss: −log-probability of the target; final_probability and final_rank: those that the
    lens gives to the model's own most probable token, ranks from 1, ties sharing the mean rank.
    """

    kl: Tensor
    top: Tensor
    probability: Tensor
    entropy: Tensor
    loss: Tensor
    final_probability: Tensor
    final_rank: Tensor
