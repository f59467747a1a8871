"""How far the next token's distribution moved, as each layer would have it (the logit lens)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from interpflow.activations.store import ActivationStore
from interpflow.engine.model import Model
from interpflow.studies.robustness.inside.aligned_words import ANSWER, PlacePairs
from interpflow.studies.robustness.inside.shifts import Shifts

# Logits held at once: 2^24 float32 are 64 MB.
_LOGITS = 2**24


def with_next_token_shift(
    shifts: Shifts, store: ActivationStore, model: Model, answer: PlacePairs, tokens_per_batch: int
) -> Shifts:
    """The shifts with `kl` where the residual stream at the answer is known: KL(clean ‖ perturbed)
    in nats of the distributions that the model's last norm and unembedding read from it. After the
    last layer that is the model's own. Exactly 0 for equal states."""
    kl = shifts.kl.copy()
    rows = max(1, min(tokens_per_batch, _LOGITS // model.vocab_size))
    for cell, (site, place) in enumerate(shifts.cells):
        if place != ANSWER or store.records[site].component != "resid_post":
            continue
        for start in range(0, len(answer.variants), rows):
            here = slice(start, start + rows)
            clean, perturbed = (
                store.matrix(site, part[here]) for part in (answer.clean, answer.changed)
            )
            kl[answer.variants[here], cell] = _divergence(model, clean, perturbed)
    return replace(shifts, kl=kl)


def _divergence(
    model: Model, clean: NDArray[np.float32], perturbed: NDArray[np.float32]
) -> NDArray[np.float64]:
    """KL [rows] between the read-outs of two states [rows, d_model]."""
    moved = (clean != perturbed).any(axis=1)
    found = np.zeros(len(clean))
    if moved.any():
        # Variants of one prompt stand together: each clean state is read out once.
        distinct, inverse = np.unique(clean[moved], axis=0, return_inverse=True)
        first = _log_probs(model, distinct)[torch.from_numpy(inverse.reshape(-1))]
        second = _log_probs(model, perturbed[moved])
        each = (first.exp() * (first - second)).sum(dim=1, dtype=torch.float64)
        found[moved] = each.clamp_min(0.0).cpu().numpy()
    return found


def _log_probs(model: Model, states: NDArray[np.float32]) -> torch.Tensor:
    residual = torch.from_numpy(states).to(device=model.device, dtype=model.dtype)
    return model.unembed(residual).float().log_softmax(dim=-1).cpu()
