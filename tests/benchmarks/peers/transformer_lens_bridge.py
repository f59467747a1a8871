"""TransformerLens 4: its own patching loop on the Bridge, and run_with_cache for the dump."""

# The peers lie in an environment of their own.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from tests.benchmarks.job import Job, Place
from tests.benchmarks.peers.plain_hooks import load_model, logit_difference, loop_job, tensors
from tests.benchmarks.works import SweepWork

ACTIVATIONS = {"resid_pre": "resid_pre", "resid_post": "resid_post", "head_out": "z"}
HOOKS = {"resid_pre": "hook_resid_pre", "resid_post": "hook_resid_post", "head_out": "hook_z"}


def load_bridge(work: Any, place: Place) -> Any:
    """The Bridge around the same weights; it chooses eager attention itself."""
    options = {"device": place.device, "dtype": getattr(torch, place.dtype)}
    if not place.directory:
        options["hf_model"] = load_model(work, place)
    return TransformerBridge.boot_transformers(place.directory, **options)


def sweep(work: SweepWork, place: Place, n_sites: int) -> Job:
    """`generic_activation_patch` over the chosen sites, per-pair values kept."""
    bridge = load_bridge(work, place)
    clean, corrupted, answers = tensors(work, place.device)
    kept: dict[str, Any] = {}
    heads = work.component == "head_out"
    setter = (
        patching.layer_pos_head_vector_patch_setter if heads else patching.layer_pos_patch_setter
    )

    def metric(logits: Tensor) -> Tensor:
        return logit_difference(logits[:, -1], answers)

    @torch.no_grad()
    def sources() -> Tensor:
        wanted = HOOKS[work.component]
        kept["cache"] = bridge.run_with_cache(
            clean, names_filter=lambda name: name.endswith(wanted)
        )[1]
        return metric(bridge(corrupted))

    @torch.no_grad()
    def patched(sites: Sequence[tuple[int, int]]) -> Tensor:
        columns = ["layer", "pos", "head_index"] if heads else ["layer", "pos"]
        rows = [(layer, work.length - 1, at) if heads else (layer, at) for layer, at in sites]
        return patching.generic_activation_patch(
            bridge,
            corrupted,
            kept["cache"],
            metric,
            setter,
            ACTIVATIONS[work.component],
            index_df=pd.DataFrame(rows, columns=columns),
            reduce="none",
        ).values

    return loop_job(work, sources, patched, work.sample(n_sites))
