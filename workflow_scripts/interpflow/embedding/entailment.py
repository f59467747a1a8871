"""Natural-language inference: how probable it is that one text follows from another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from interpflow.embedding.equal_lengths import each_batch, plan
from interpflow.embedding.model_files import model_directory
from interpflow.errors import UserError
from interpflow.models.classifiers import load_classifier
from interpflow.models.devices import check_device
from interpflow.models.memory import check_fits_memory

ENTAILMENT = "entailment"

logger = logging.getLogger("embedding.entailment")


def entailment_probabilities(
    pairs: Sequence[tuple[str, str]],
    *,
    model: str,
    device: str = "cpu",
    progress: logging.Logger | None = None,
) -> np.ndarray:
    """Probability [pair] float64 that the second text of each pair follows from the first.

    model: a sequence classifier of natural-language inference, by its directory or as
    "owner/name@revision". Its softmax over all labels, at the one called "entailment". A pair
    longer than the model reads loses the end of its longer text, and a warning says how many did.
    Equal pairs are asked once.

    Raises UserError for a model that is no sequence classifier, that has no label or several
    called "entailment", whose files lack weights, that does not fit in memory, and everything
    `model_files.model_directory` raises.
    """
    if not pairs:
        return np.zeros(0)
    import torch

    classifier, tokenizer = _load(model, device)
    label = entailment_label(classifier.config.id2label, f"nli {model}")
    distinct = list(dict.fromkeys(pairs))
    longest = _longest(classifier, tokenizer)
    encoded = tokenizer(
        [first for first, _ in distinct], [second for _, second in distinct], truncation=False,
        verbose=False,
    )  # fmt: skip
    lengths = [len(ids) for ids in encoded["input_ids"]]
    n_cut = sum(length > longest for length in lengths)
    if n_cut:
        logger.warning("%d of %d pairs are longer than %d tokens, which is all that the model "
                       "reads; their ends are cut off", n_cut, len(lengths), longest)  # fmt: skip

    # A tokenizer's settings belong to all threads.
    tokenizing = Lock()

    def work(batch: list[int]) -> np.ndarray:
        with tokenizing:
            inputs = tokenizer(
                [distinct[i][0] for i in batch], [distinct[i][1] for i in batch],
                truncation="longest_first", max_length=longest, return_tensors="pt",
            ).to(device)  # fmt: skip
        with torch.inference_mode():
            logits = classifier(**inputs).logits
        return torch.softmax(logits.double(), dim=-1)[:, label].cpu().numpy()

    values = np.empty(len(distinct))
    batches = plan([min(length, longest) for length in lengths], device)
    for batch, found in each_batch(work, batches, device):
        values[batch] = found
    if progress:
        progress.info("entailment: %d pairs", len(distinct))
    row = {pair: i for i, pair in enumerate(distinct)}
    return values[[row[pair] for pair in pairs]]


def entailment_label(id2label: Mapping[Any, Any], where: str) -> int:
    """The output that stands for entailment. Raises UserError where no label or more than one is
    called so ("not_entailment" is not)."""
    found = [int(i) for i, name in id2label.items() if str(name).strip().lower() == ENTAILMENT]
    if len(found) != 1:
        raise UserError(
            f"{len(found) or 'none'} of the model's labels {'are' if found else 'is'} called "
            f"{ENTAILMENT!r}: {', '.join(str(name) for name in id2label.values())}",
            where=where,
            remedy="choose a model of natural-language inference, or name the labels in the "
            "id2label of its config.json",
        )
    return found[0]


def _longest(classifier: Any, tokenizer: Any) -> int:
    positions = getattr(classifier.config, "max_position_embeddings", None)
    # Position ids of the RoBERTa family begin after the padding's: two fewer can be read.
    offset = 2 if classifier.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return min(tokenizer.model_max_length, positions - offset if positions else 512)


def _load(model: str, device: str) -> tuple[Any, Any]:
    where = f"nli {model}"
    directory = model_directory(model, where)
    check_device(device, where)
    check_fits_memory(directory, model, "float32", device)
    return load_classifier(
        directory,
        device=device,
        where=f"{where}: {directory}",
        if_unloadable="choose a model of natural-language inference that transformers knows",
        if_incomplete="choose a model that was trained as a sequence classifier",
    )
