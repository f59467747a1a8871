"""Sequence classifiers: loaded whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interpflow.errors import UserError


def load_classifier(
    directory: Path, *, device: str, where: str, if_unloadable: str, if_incomplete: str
) -> tuple[Any, Any]:
    """Load (sequence classifier in evaluation mode and float32, tokenizer) of a checked directory.

    Raises UserError, naming `where`, for what transformers cannot load as a sequence classifier
    (remedy `if_unloadable`), and for weights that are missing from the files or of another shape
    and would be random (remedy `if_incomplete`).
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            directory,
            dtype="float32",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # named below
        )
        model, loading = loaded
        tokenizer = AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError,
            AttributeError, SafetensorError) as error:  # fmt: skip
        raise UserError(
            f"the model cannot be loaded as a sequence classifier: {error}",
            where=where,
            remedy=if_unloadable,
        ) from error
    bad = sorted(map(str, [*loading["missing_keys"], *(loading.get("mismatched_keys") or ())]))
    if bad:
        raise UserError(
            f"{len(bad)} weights are missing or of the wrong shape in the files, and would be "
            f"random: {bad[0]} …",
            where=where,
            remedy=if_incomplete,
        )
    return model.to(device).eval(), tokenizer
