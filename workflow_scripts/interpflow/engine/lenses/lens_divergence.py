"""How far a lens is from the model at every depth, and in which direction to change it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.lenses.readings import LOGITS_AT_ONCE
from interpflow.engine.lenses.tuned_lens import TunedLens
from interpflow.engine.model import Model, full_precision


def divergence(model: Model, lens: TunedLens, states: Tensor) -> Tensor:
    """Mean KL(model ‖ lens) in nats, float64 [depth but the last], of states [depth, n, d_model],
    the last depth included."""
    return _descent(model, lens, states, with_gradients=False).kl


def descent(model: Model, lens: TunedLens, states: Tensor) -> Descent:
    """`divergence` with its gradients: those of all depths by one pass over the vocabulary each."""
    return _descent(model, lens, states, with_gradients=True)


def _descent(model: Model, lens: TunedLens, states: Tensor, *, with_gradients: bool) -> Descent:
    n = states.shape[1]
    kl = torch.zeros(lens.n_depths, dtype=torch.float64)
    weight = None if lens.weight is None else torch.zeros_like(lens.weight)
    bias = torch.zeros_like(lens.bias)
    rows = max(1, LOGITS_AT_ONCE // model.vocab_size)
    for start in range(0, n, rows):
        part = states[:, start : start + rows]
        final = full_precision(model.unembed(part[-1])).log_softmax(dim=-1)
        p = final.exp()
        entropy = -torch.linalg.vecdot(p, final)
        for depth in range(lens.n_depths):
            read = lens.translated(depth, part[depth]).requires_grad_(with_gradients)
            with torch.set_grad_enabled(with_gradients):
                logits = model.architecture.unembed(read)
            z = full_precision(logits.detach())
            highest = z.max(dim=-1, keepdim=True).values
            q = (z - highest).exp_()
            total = q.sum(dim=-1, keepdim=True)
            cross = (highest + total.log())[:, 0] - torch.linalg.vecdot(p, z)
            kl[depth] += (cross - entropy).sum(dtype=torch.float64).item()
            if not with_gradients:
                continue
            # d KL(p ‖ softmax z) / dz = softmax z − p; torch takes it through unembedding and norm.
            slope = q.div_(total).sub_(p).div_(n).to(logits.dtype)
            (pulled,) = torch.autograd.grad(logits, read, slope)
            pulled = pulled.to(bias.dtype)
            bias[depth] += pulled.sum(dim=0)
            if weight is not None:
                weight[depth] += pulled.t() @ part[depth].to(weight.dtype)
    return Descent(kl / n, weight, bias)


@dataclass(frozen=True, eq=False)
class Descent:
    """kl: float64 [depth]; weight, bias: gradients of its sum over depths with respect to those of
    the lens, of their shapes."""

    kl: Tensor
    weight: Tensor | None
    bias: Tensor
