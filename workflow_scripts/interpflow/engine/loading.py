"""Loading a model for the engine: files or a model in memory -> a proven map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from interpflow.engine.architecture import find_architecture
from interpflow.engine.model import Model
from interpflow.engine.proofs.component_proof import prove
from interpflow.errors import UserError

if TYPE_CHECKING:
    from interpflow.models.acquire import ModelSource


def load(
    name_or_path: PreTrainedModel | ModelSource | str | Path,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | torch.device = "auto",
    tokenizer: Any = None,
) -> Model:
    """Load a decoder-only model and prove the map of its parts.

    name_or_path: a directory, the name of a reference model, a hub id ("owner/name", with a
    `revision`), a declared source, or a model already in memory, which is converted in place to
    `dtype` and put in evaluation mode.
    device: "auto" is a CUDA device if there is one, else the CPU; a model in memory stays where it
    is.
    Raises UserError for everything that `interpflow.models.acquire` checks (pickles, remote code,
    memory), and, naming the module, when the map cannot be proven.
    """
    wanted = getattr(torch, dtype, None)
    if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
        raise UserError(f"{dtype!r} is no floating-point type", remedy="use float32 or bfloat16")
    if isinstance(name_or_path, PreTrainedModel):
        module = name_or_path.to(dtype=wanted)  # type: ignore[call-arg]
        if str(device) != "auto":
            module = module.to(device)  # type: ignore[arg-type]
    else:
        from interpflow.models.acquire import load_transformer
        from interpflow.models.sources import source_of

        if str(device) == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        source = source_of(name_or_path, revision=revision, dtype=dtype)
        module, found = load_transformer(source, dtype=dtype, device=str(device))
        tokenizer = found if tokenizer is None else tokenizer
    module.eval()
    return Model(module, tokenizer, prove(module, find_architecture(module)))
