"""What lenses read of held-out documents, and how much each block changes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpflow.config.identity import derived_seed
from interpflow.engine.lenses.depth_states import depth_states
from interpflow.engine.lenses.readings import ROWS_AT_ONCE, Lens, read_lenses
from interpflow.engine.model import Model, full_precision
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.stats.block_influence import block_influence

FloatArray = NDArray[np.float64]
MEASURES = ("kl", "top1_kept", "entropy", "loss")
UNIGRAM = "unigram"


def read_documents(
    model: Model,
    lenses: Mapping[str, Lens],
    rows: Sequence[ScoredRow],
    *,
    unigram: Tensor | None = None,
    tokens_per_batch: int,
    seed: int,
) -> DocumentReadings:
    """Means over the places of each row, at every depth through every lens.

    unigram: float32 [vocab], log-probabilities of a baseline that reads nothing. seed decides which
    token stands for a document where only one may (tokens of a document are not independent).
    """
    n, n_depths = len(rows), model.n_layers + 1
    means = {name: {key: np.full((n, n_depths), np.nan) for key in MEASURES} for name in lenses}
    baseline = {key: np.full(n, np.nan) for key in MEASURES}
    influence: FloatArray = np.full((n, model.n_layers), np.nan)
    one_token: NDArray[np.float32] = np.zeros((n, n_depths, model.d_model), np.float32)
    tokens = [row.tokens for row in rows]
    for found in depth_states(model, tokens, batch_tokens=tokens_per_batch):
        row = rows[found.number]
        states = found.states[:, list(row.places)]
        targets = torch.tensor(row.targets)
        for name, read in read_lenses(model, lenses, states, targets).items():
            kept = (read.top == read.top[-1]).double()
            parts = {"kl": read.kl, "top1_kept": kept, "entropy": read.entropy, "loss": read.loss}
            for key, values in parts.items():
                means[name][key][found.number] = values.double().mean(dim=1).numpy()
        if unigram is not None:
            for key, value in _without_reading(model, states[-1], unigram, targets).items():
                baseline[key][found.number] = value
        plain = full_precision(states).cpu().numpy()
        for block in range(model.n_layers):
            influence[found.number, block] = block_influence(plain[block], plain[block + 1])
        place = derived_seed(seed, "token", row.item_id) % len(row.places)
        one_token[found.number] = plain[:, place]
    return DocumentReadings(
        documents=[row.item_id for row in rows],
        n_tokens=[len(row.places) for row in rows],
        means=means,
        unigram={} if unigram is None else baseline,
        influence=influence,
        one_token=one_token,
    )


def mean_distribution(model: Model, states: Tensor) -> Tensor:
    """Log of the mean next-token distribution [vocab] of states [n, d_model] of the last depth."""
    sums = [
        full_precision(model.unembed(part)).softmax(dim=-1).sum(dim=0, dtype=torch.float64)
        for part in states.split(ROWS_AT_ONCE)
    ]
    mean = torch.stack(sums).sum(dim=0) / len(states)
    return mean.clamp_min(torch.finfo(torch.float32).tiny).log().float()


def _without_reading(
    model: Model, last: Tensor, unigram: Tensor, targets: Tensor
) -> dict[str, float]:
    final = full_precision(model.unembed(last)).log_softmax(dim=-1)
    kept = final.argmax(dim=-1) == unigram.argmax()
    return {
        "kl": (final.exp() * (final - unigram)).sum(dim=-1).mean().item(),
        "top1_kept": kept.double().mean().item(),
        "entropy": -(unigram.exp() * unigram).sum().item(),
        "loss": -unigram[targets.to(unigram.device)].mean().item(),
    }


@dataclass(frozen=True)
class DocumentReadings:
    """means: lens → measure → [document, depth]; unigram: measure → [document]; influence
    [document, block]; one_token [document, depth, d_model], a drawn token of each. Nats."""

    documents: list[str]
    n_tokens: list[int]
    means: dict[str, dict[str, FloatArray]]
    unigram: dict[str, FloatArray]
    influence: FloatArray
    one_token: NDArray[np.float32]

    def to_rows(self) -> list[dict[str, Any]]:
        """Rows of the table `surgery_lenses`; the unigram baseline reads no depth: null."""
        rows = []
        for place, (document, n_tokens) in enumerate(
            zip(self.documents, self.n_tokens, strict=True)
        ):
            shared = {"document_id": document, "n_tokens": n_tokens}
            for name, parts in self.means.items():
                for depth in range(parts["kl"].shape[1]):
                    values = {key: float(parts[key][place, depth]) for key in MEASURES}
                    rows.append({"lens": name, "depth": depth, **shared, **values})
            if self.unigram:
                values = {key: float(self.unigram[key][place]) for key in MEASURES}
                rows.append({"lens": UNIGRAM, "depth": None, **shared, **values})
        return rows
