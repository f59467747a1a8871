"""Reward models: sequence classifiers with one output, which scores an answer to a question.

An entry of the config names one: "reference" (the embedded one), a directory, or a model of the
hub as "owner/name@revision".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpflow.errors import UserError
from interpflow.models.acquire import HUB_IGNORED, HUB_PATTERNS
from interpflow.models.classifiers import load_classifier
from interpflow.models.devices import check_device
from interpflow.models.files import check_exists, check_tokenizer, check_weights, read_config
from interpflow.models.hub import download, pinned_name
from interpflow.models.memory import check_fits_memory
from interpflow.paths import RESOURCES_DIR

BUILT_IN = "reference"
BUILT_IN_DIRECTORY = "reward_model"
CLASSIFIER = "ForSequenceClassification"
REMEDY = "choose a sequence classifier with one output, trained as a reward model"


@dataclass(frozen=True)
class RewardSource:
    """Where a reward model lies: a directory, or a hub id with its commit."""

    entry: str
    directory: Path | None
    hub: str | None = None
    revision: str | None = None

    @property
    def where(self) -> str:
        return f"reward model {self.entry}"


def reward_source(entry: str, resources_dir: Path = RESOURCES_DIR) -> RewardSource:
    """What an entry of the config stands for; nothing is loaded or downloaded.

    Raises UserError for what is neither a directory nor a hub id, and for a hub id without a
    revision.
    """
    if entry == BUILT_IN:
        return RewardSource(entry, resources_dir / "reference" / BUILT_IN_DIRECTORY)
    directory = Path(entry).expanduser()
    if directory.is_dir():
        return RewardSource(entry, directory)
    name, revision = pinned_name(
        entry,
        what="reward model",
        where="robustness.scoring.reward_models",
        choices=f"{BUILT_IN} (built in)",
        lost="scores",
    )
    return RewardSource(entry, None, name, revision)


def check_reward_files(entry: str, resources_dir: Path = RESOURCES_DIR) -> None:
    """Everything about an entry that can be known without transformers and without the network.

    Raises UserError for everything `reward_source` raises and, of a directory, for files that are
    missing, damaged or unsafe, and where its config.json tells of other than one output.
    """
    source = reward_source(entry, resources_dir)
    if source.directory is not None:
        _check_directory(source.directory, f"{source.where}: {source.directory}")


def fetch_reward_model(entry: str, resources_dir: Path = RESOURCES_DIR) -> Path:
    """The checked directory of a reward model, downloaded if it is on the hub and not here yet.

    Raises UserError for everything `reward_source` and `models.hub.download` raise, for files that
    are missing, damaged or unsafe, and where the config shows a model that is no sequence
    classifier with one output.
    """
    source = reward_source(entry, resources_dir)
    directory = source.directory or download(
        str(source.hub),
        str(source.revision),
        where=source.where,
        allowed=HUB_PATTERNS,
        ignored=HUB_IGNORED,
    )
    where = f"{source.where}: {directory}"
    check_exists(directory, where)
    # First: what the outputs of an unknown type are, nobody can say.
    _check_type(read_config(directory, where), where)
    _check_directory(directory, where)
    return directory


def load_reward_model(
    entry: str, *, device: str = "cpu", resources_dir: Path = RESOURCES_DIR
) -> tuple[Any, Any]:
    """Load (sequence classifier with one output in evaluation mode and float32, fast tokenizer).

    Raises UserError for everything `fetch_reward_model` raises, for weights that are missing from
    the files and would be random (a language model without a classification head), a model that
    does not fit in memory, and a device that is not there.
    """
    directory = fetch_reward_model(entry, resources_dir)
    where = f"reward model {entry}: {directory}"
    check_device(device, where)
    check_fits_memory(directory, entry, "float32", device)
    model, tokenizer = load_classifier(
        directory,
        device=device,
        where=where,
        if_unloadable="choose a model that transformers loads as …ForSequenceClassification",
        if_incomplete="choose a model that was trained as a reward model, with its head",
    )
    if not tokenizer.is_fast:
        raise UserError(
            "the tokenizer does not say which tokens are the answer's",
            where=where,
            remedy="add a tokenizer.json (a 'fast' tokenizer) to the model",
        )
    return model, tokenizer


def _check_directory(directory: Path, where: str) -> None:
    check_exists(directory, where)
    config = read_config(directory, where)
    check_weights(directory, where)
    check_tokenizer(directory, where)
    named = [str(name) for name in config.get("architectures") or []]
    if named and not any(name.endswith(CLASSIFIER) for name in named):
        raise _headless(named[0], where)
    labels = config.get("id2label")
    # Without either key transformers takes two labels.
    n_labels = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if n_labels != 1:
        names = ", ".join(map(str, labels.values())) if isinstance(labels, dict) else "unnamed"
        raise UserError(
            f"the model has {n_labels} outputs ({names}), a reward model has one",
            where=where,
            remedy=REMEDY,
        )


def _check_type(config: dict[str, Any], where: str) -> None:
    """Whether the installed transformers has a sequence classifier of this type."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    model_type = config.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"the model type {model_type!r} is unknown to the installed transformers, or runs code "
            "from its own repository",
            where=where,
            remedy=REMEDY,
        )
    if model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise _headless(f"a model of type {model_type!r}", where)


def _headless(what: str, where: str) -> UserError:
    return UserError(
        f"the weights are those of {what}, without a head that gives one score",
        where=where,
        remedy=REMEDY,
    )
