"""Logits of a few tokens, without computing those of the whole vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from interpflow.engine.architecture import Architecture


def unembed_columns(architecture: Architecture, residual: Tensor, tokens: Tensor) -> Tensor:
    """Logits [row, n] of the tokens [n] (the same for all rows) or [row, n] (each row's own) for
    residuals [row, d_model] after the last block."""
    unembedding = architecture.unembedding
    if type(unembedding) is not nn.Linear:
        logits = architecture.unembed(residual)
        return logits.gather(1, tokens.expand(len(residual), -1).to(logits.device))
    state = architecture.normalized(residual)
    tokens = tokens.to(unembedding.weight.device)
    weight = unembedding.weight[tokens]
    bias = None if unembedding.bias is None else unembedding.bias[tokens]
    if tokens.ndim == 1:
        logits = functional.linear(state, weight, bias)
    else:
        logits = torch.einsum("rd,rnd->rn", state, weight)
        logits = logits if bias is None else logits + bias
    return architecture.scaled(logits)
