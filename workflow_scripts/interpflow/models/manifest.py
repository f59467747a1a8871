"""What a model is, as one JSON document: the identity that results made with it carry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from interpflow.models.acquire import ModelSource, fetch
from interpflow.models.tokens import special_prefix
from interpflow.paths import RESOURCES_DIR
from interpflow.tables.provenance import file_digest


def build_manifest(
    source: ModelSource, model: Any, tokenizer: Any, resources_dir: Path = RESOURCES_DIR
) -> dict[str, Any]:
    """Describe a loaded model; the same files give the same document on every machine.

    `weights_sha256` is the digest of the weight files' names and digests; `commit` the hub's
    commit (None for a directory); `bos` "one" when encoded text begins with the BOS token, else
    "none". Sizes are counts; `n_params` counts a shared embedding once.
    """
    directory = fetch(source, resources_dir)
    config = model.config.get_text_config()
    weights = _weights(directory)
    heads = getattr(config, "num_attention_heads", None)
    bos = tokenizer.bos_token_id is not None and tokenizer.bos_token_id in special_prefix(tokenizer)
    return {
        "name": source.name,
        "kind": source.kind,
        "location": directory.name if source.kind == "local" else source.location,
        "revision": source.revision,
        # A snapshot of the hub lies in a directory named by its commit.
        "commit": directory.name if source.kind == "hub" else None,
        "weights_files": weights,
        "weights_sha256": _digest(weights),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "architecture": type(model).__name__,
        "n_params": sum(parameter.numel() for parameter in model.parameters()),
        "n_layers": getattr(config, "num_hidden_layers", None),
        "d_model": getattr(config, "hidden_size", None),
        "n_heads": heads,
        "n_kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "vocab_size": config.vocab_size,
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_positions": getattr(config, "max_position_embeddings", None),
        "chat_template": bool(getattr(tokenizer, "chat_template", None)),
        "bos": "one" if bos else "none",
        "trust_remote_code": source.trust_remote_code,
    }


def weights_revision(source: ModelSource, resources_dir: Path = RESOURCES_DIR) -> str:
    """What pins a model's weights: the commit of a hub model, else the manifest's digest of its
    weight files."""
    if source.kind == "hub" and source.revision:
        return source.revision
    return _digest(_weights(fetch(source, resources_dir)))


def tokenizer_sha256(tokenizer: Any) -> str:
    """Digest of everything that decides the ids of a text, and of the chat template."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    # Set by whoever called the tokenizer last, not part of what it is.
    rules["padding"] = rules["truncation"] = None
    template = getattr(tokenizer, "chat_template", None)
    return _digest(
        {"rules": rules, "template": template, "prefix": list(special_prefix(tokenizer))}
    )


def _weights(directory: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(directory.glob("*.safetensors"))}


def _digest(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
