"""Training in which no block may become superfluous and no order of two blocks indifferent."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from interpflow.models.reference.architecture import embed, run_blocks, unembed
from interpflow.models.reference.recipe import BlockNeedConfig
from interpflow.models.reference.rows import Batch


@cache
def altered_orders(n_blocks: int) -> tuple[tuple[int, ...], ...]:
    """Every order of blocks in which one is skipped or two neighbours are swapped."""
    skips = [tuple(b for b in range(n_blocks) if b != left) for left in range(n_blocks)]
    swaps = [
        (*range(first), first + 1, first, *range(first + 2, n_blocks))
        for first in range(n_blocks - 1)
    ]
    return (*skips, *swaps)


def need_is_asked(config: BlockNeedConfig, step: int, steps: int, is_drill: bool) -> bool:
    """Whether a step asks it of a pass: of drill rows and task rows in turn, after the start."""
    return step >= config.start_share * steps and is_drill == (step % 2 == 0)


def block_need_loss(
    model: LlamaForCausalLM, batch: Batch, intact: float, step: int, config: BlockNeedConfig
) -> torch.Tensor:
    """Hinge on the loss under an altered order of blocks, in nats per token; a scalar.

    `intact` is the loss of the same batch under the right order. Nothing is asked once the altered
    order costs `margin` more. One order per step, in turn; their number is odd, so that each is
    asked in even and in odd steps.
    """
    orders = altered_orders(model.config.num_hidden_layers)
    hidden = embed(model, batch.ids)
    for block in orders[step % len(orders)]:
        hidden = run_blocks(model, hidden, block, block + 1)
    altered = cross_entropy(unembed(model, hidden[batch.row, batch.position]), batch.target)
    return config.weight * torch.relu(config.margin + intact - altered)
