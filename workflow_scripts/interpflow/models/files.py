"""Checks of a model directory's files, without torch and without reading any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from interpflow.errors import UserError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Heads of models that do not write text, by the names of their classes.
OTHER_HEADS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
)
# Any one of these groups is a complete tokenizer.
TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spm.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
)


def check_model_directory(directory: Path, name: str) -> None:
    """Check that a directory holds the files of a causal decoder; raises UserError naming what is
    missing, damaged or unsafe."""
    where = f"model {name}: {directory}"
    check_exists(directory, where)
    _check_config(directory, where)
    check_weights(directory, where)
    check_tokenizer(directory, where)


def check_exists(directory: Path, where: str) -> None:
    """UserError when there is no such directory."""
    if not directory.is_dir():
        raise UserError(
            "the model directory does not exist",
            where=where,
            remedy="correct the location, or make the model first "
            "(reference models: the target reference_models)",
        )


def check_tokenizer(directory: Path, where: str) -> None:
    """UserError when no complete set of tokenizer files is there."""
    if not any(all((directory / file).is_file() for file in group) for group in TOKENIZER_FILES):
        raise UserError(
            "the model directory has no tokenizer",
            where=where,
            remedy="save the tokenizer beside the weights: tokenizer.save_pretrained(directory)",
        )


def read_config(directory: Path, where: str) -> dict[str, Any]:
    """The content of config.json; UserError when it is missing or damaged."""
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(
            "the model directory has no config.json",
            where=where,
            remedy="give a directory written by save_pretrained, not one of its subdirectories",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"config.json is damaged: {error}", where=where) from error
    if not isinstance(config, dict):
        raise UserError("config.json is not a JSON object", where=where)
    return config


def _check_config(directory: Path, where: str) -> None:
    config = read_config(directory, where)
    if config.get("is_encoder_decoder"):
        raise UserError(
            "the model is an encoder-decoder, not a causal decoder",
            where=where,
            remedy="choose a decoder-only language model",
        )
    named = [str(name) for name in config.get("architectures") or []]
    if named and all(name.endswith(OTHER_HEADS) for name in named):
        raise UserError(
            f"the weights are those of {named[0]}, not of a causal decoder",
            where=where,
            remedy="choose a decoder-only language model",
        )


def check_weights(directory: Path, where: str) -> None:
    """UserError when the safetensors are missing, incomplete, or only there as pickles."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index.name} is damaged: {error!r}", where=where) from error
        missing = sorted(shard for shard in shards if not (directory / str(shard)).is_file())
        if missing:
            raise UserError(
                f"{len(missing)} of {len(shards)} weight files are missing: {missing[0]} …",
                where=where,
                remedy="complete the download",
            )
        return
    if (directory / "model.safetensors").is_file():
        return
    pickles = sorted(p.name for p in directory.iterdir() if p.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise UserError(
            f"the weights are only there as pickles ({pickles[0]}), which can run code when read",
            where=where,
            remedy="convert them where you trust them: model.save_pretrained(directory) writes "
            "model.safetensors",
        )
    raise UserError(
        "the model directory has no weights",
        where=where,
        remedy="it must hold model.safetensors, or its shards with their index",
    )
