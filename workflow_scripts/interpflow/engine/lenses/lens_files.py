"""Lenses as safetensors files that say which model they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from interpflow.engine.lenses.tuned_lens import TunedLens
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.tables.atomic import atomic_path

FORMAT = "interpflow lens 1"


def readout_digest(model: Model) -> str:
    """SHA-256 of everything between the last residual and the logits: norm, projection,
    unembedding, scale and cap."""
    architecture = model.architecture
    digest = hashlib.sha256()
    digest.update(repr((architecture.logit_scale, architecture.softcap)).encode())
    for module in (architecture.final_norm, architecture.after_norm, architecture.unembedding):
        if module is None:
            digest.update(b"none")
            continue
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        digest.update(f"{type(module).__name__} {epsilon}".encode())
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            plain = tensor.detach().cpu().contiguous()
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_lens(
    path: Path | str,
    lenses: Mapping[str, TunedLens],
    model: Model,
    *,
    revision: str = "",
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write named lenses of a model into one file. revision: of the model's weights; config: how
    they were trained."""
    tensors = {}
    for name, lens in lenses.items():
        tensors[f"{name}.bias"] = lens.bias.detach().cpu().contiguous()
        if lens.weight is not None:
            tensors[f"{name}.weight"] = lens.weight.detach().cpu().contiguous()
    about = {
        "format": FORMAT,
        "readout": readout_digest(model),
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "revision": revision,
        "config": dict(config or {}),
    }
    # One key: the order in which a file holds several is not decided by what it holds.
    metadata = {"interpflow": json.dumps(about, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def lens_metadata(path: Path | str) -> dict[str, Any]:
    """What a file says about its lenses. Raises UserError for a file that holds none."""
    remedy = "delete it and train the lens again"
    try:
        with safe_open(path, framework="pt") as opened:
            about = json.loads((opened.metadata() or {})["interpflow"])
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}")
    except FileNotFoundError:
        raise UserError("the lens does not exist", where=str(path), remedy="train it") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the file holds no lens of this version: {error}", where=str(path), remedy=remedy
        ) from error
    return about


def load_lens(path: Path | str, model: Model) -> dict[str, TunedLens]:
    """The lenses of a file, on the model's device.

    Raises UserError for a damaged file, and when the lens was trained on another readout (last
    norm, unembedding) or another shape of model: it would read nonsense.
    """
    about = lens_metadata(path)
    theirs = (about["n_layers"], about["d_model"], about["readout"])
    if theirs != (model.n_layers, model.d_model, readout_digest(model)):
        raise UserError(
            f"this lens was trained on another model: {theirs[0]} blocks of width {theirs[1]}, "
            f"readout {theirs[2][:12]}; this one has {model.n_layers} of {model.d_model}, "
            f"{readout_digest(model)[:12]}",
            where=str(path),
            remedy="load the model that it was trained on, or train a lens on this one",
        )
    with safe_open(path, framework="pt", device=str(model.device)) as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    names = dict.fromkeys(name.rsplit(".", 1)[0] for name in tensors)
    return {name: TunedLens(tensors.get(f"{name}.weight"), tensors[f"{name}.bias"])
            for name in names}  # fmt: skip
