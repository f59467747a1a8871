"""Statistics of states over prompts, computed batch by batch in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.engine.positions import Positions, positions_of_rows
from interpflow.engine.prompts import Prompts, as_rows
from interpflow.engine.sites import Site
from interpflow.errors import UserError


def mean_state(
    model: Model,
    prompts: Prompts,
    site: Site,
    positions: Positions = "all",
    *,
    per_position: bool = False,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> Tensor:
    """Mean state of a site over the chosen positions of all prompts, [d] float64 on the CPU.

    per_position: one mean for each position, [longest prompt, d], NaN where no prompt was asked
    for it. Every chosen position counts once. Raises UserError when nothing is chosen, and for
    patterns, whose width changes from prompt to prompt.
    """
    if site.component == "pattern":
        raise UserError(
            "patterns of different prompts have no mean", where=str(site),
            remedy="take the mean of v or of head_out",
        )  # fmt: skip
    rows = as_rows(prompts, model.tokenizer)
    lengths = [len(row) for row in rows]
    chosen = positions_of_rows(positions, lengths, where="mean state")
    width = model.architecture.width(site, 0)
    total = torch.zeros(max(lengths), width, dtype=torch.float64)
    count = torch.zeros(max(lengths), dtype=torch.int64)
    for batch in _batches(lengths, batch_tokens):
        places = [chosen[row] for row in batch]
        states = model.capture([rows[row] for row in batch], [site], positions=places)[site]
        for row, at in enumerate(places):
            found = states[row, : len(at)].double().cpu()
            total.index_add_(0, torch.tensor(at, dtype=torch.int64), found)
            count += torch.bincount(torch.tensor(at, dtype=torch.int64), minlength=len(count))
    if not bool(count.any()):
        raise UserError("no position is chosen", where=f"mean state of {site}")
    if per_position:
        return total / torch.where(count > 0, count, torch.nan)[:, None]
    return total.sum(dim=0) / count.sum()


def embedding_sd(
    model: Model,
    prompts: Prompts,
    positions: Positions = "all",
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> float:
    """Standard deviation of the embedded tokens of the prompts, over tokens and features: causal
    tracing (Meng et al. 2022) adds noise of three times this."""
    rows = as_rows(prompts, model.tokenizer)
    lengths = [len(row) for row in rows]
    chosen = positions_of_rows(positions, lengths, where="embeddings")
    n, mean, squares = 0, 0.0, 0.0
    for batch in _batches(lengths, batch_tokens):
        places = [chosen[row] for row in batch]
        states = model.capture([rows[row] for row in batch], [Site("embed")], positions=places)
        for row, at in enumerate(places):
            found = states[Site("embed")][row, : len(at)].double()
            if found.numel():
                # Chan's update of a running mean and sum of squares.
                shift = float(found.mean()) - mean
                joint = n + found.numel()
                squares += float((found - found.mean()).square().sum())
                squares += shift**2 * n * found.numel() / joint
                mean, n = mean + shift * found.numel() / joint, joint
    if n < 2:
        raise UserError("no position is chosen", where="embeddings")
    return (squares / (n - 1)) ** 0.5


def _batches(lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Prompts of one length together, so that no row is padded."""
    batches = []
    for length in sorted(set(lengths)):
        rows = [row for row, n in enumerate(lengths) if n == length]
        step = max(1, batch_tokens // length)
        batches += [rows[start : start + step] for start in range(0, len(rows), step)]
    return batches
