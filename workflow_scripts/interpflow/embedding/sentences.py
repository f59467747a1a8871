"""Sentence embeddings: one vector of length 1 per text, by any sentence-transformers model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from interpflow.embedding.equal_lengths import each_batch, plan
from interpflow.embedding.model_files import BUILT_IN, model_directory
from interpflow.errors import UserError
from interpflow.models.devices import check_device
from interpflow.models.memory import check_fits_memory

logger = logging.getLogger("embedding")


def embed_texts(
    texts: Sequence[str],
    *,
    model: str = BUILT_IN,
    device: str = "cpu",
    progress: logging.Logger | None = None,
) -> np.ndarray:
    """Embeddings [text, dimension] float32 of length 1, so that their products are cosines.

    model: "minilm" (built in, 384 dimensions), a directory, or "owner/name@revision" of the hub. A
    prompt that the model puts before every text by default is put there. Equal texts are embedded
    once and get equal vectors. A text longer than the model reads is cut, and a warning says how
    many were. On the CPU as many batches run at once as torch has threads; their number changes
    no value.

    Raises UserError for a missing model or package, a directory that is no sentence-transformers
    model, one that does not fit in memory, and everything `model_files.model_directory` raises.
    """
    import torch

    encoder = load_encoder(model, device)
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return np.zeros((0, encoder.get_embedding_dimension() or 0), dtype=np.float32)
    lengths = _lengths(encoder, distinct)
    kept = np.empty((len(distinct), 0), dtype=np.float32)

    # A tokenizer's settings belong to all threads.
    tokenizing = Lock()

    def work(batch: list[int]) -> np.ndarray:
        with tokenizing:
            features = encoder.preprocess(
                [distinct[index] for index in batch], prompt=_prompt(encoder) or None
            )
        with torch.inference_mode():
            found = encoder({key: _on(device, value) for key, value in features.items()})
            vectors = torch.nn.functional.normalize(found["sentence_embedding"], dim=1)
        return vectors.cpu().numpy()

    n_done = 0
    for batch, vectors in each_batch(work, plan(lengths, device), device):
        if not kept.shape[1]:
            kept = np.empty((len(distinct), vectors.shape[1]), dtype=np.float32)
        kept[batch] = vectors
        before, n_done = n_done, n_done + len(batch)
        if progress and (n_done == len(distinct) or n_done // 10_000 > before // 10_000):
            progress.info("embedding: %d of %d texts", n_done, len(distinct))
    row = {text: i for i, text in enumerate(distinct)}
    return kept[[row[text] for text in texts]]


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine [row] float64 of each row of `first` with that row of `second`, both [row, dimension]
    of length 1."""
    products = np.einsum("ij,ij->i", first.astype(np.float64), second.astype(np.float64))
    return np.clip(products, -1.0, 1.0)


def load_encoder(model: str, device: str = "cpu") -> Any:
    """The SentenceTransformer in float32 and evaluation mode. Raises UserError as `embed_texts`."""
    where = f"embedding {model}"
    directory = model_directory(model, where)
    if not (directory / "modules.json").is_file():
        raise UserError(
            "not a sentence-transformers model: it has no modules.json",
            where=f"{where}: {directory}",
            remedy="choose one made for sentence embeddings; the mean of another model's states "
            "says little of a text's meaning",
        )
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            f"the package sentence-transformers cannot be imported: {error}",
            where=where,
            remedy="pip install -r requirements.lock",
        ) from error
    from safetensors import SafetensorError

    check_device(device, where)
    if (directory / "config.json").is_file():  # static embeddings have none, and are small
        check_fits_memory(directory, model, "float32", device)
    try:
        encoder = SentenceTransformer(
            str(directory), device=device, trust_remote_code=False, local_files_only=True,
            model_kwargs={"dtype": "float32", "use_safetensors": True},
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError,
            SafetensorError) as error:  # fmt: skip
        raise UserError(
            f"the embedding model cannot be loaded: {error}",
            where=f"{where}: {directory}",
            remedy="check that the directory is complete and made for this sentence-transformers "
            "version, and runs no code of its own",
        ) from error
    return encoder.eval()


def _prompt(encoder: Any) -> str:
    return encoder.prompts.get(encoder.default_prompt_name) or ""


def _on(device: str, value: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value


def _lengths(encoder: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text as the model reads it, for batches of equal length; characters for a
    model whose tokenizer is not one of the transformers library (its batches are not padded)."""
    from transformers import PreTrainedTokenizerBase

    if not isinstance(encoder.tokenizer, PreTrainedTokenizerBase):
        return [len(text) for text in texts]
    prompt = _prompt(encoder)
    found = encoder.tokenizer([prompt + text for text in texts], truncation=False, verbose=False)
    lengths = [len(ids) for ids in found["input_ids"]]
    longest = encoder.max_seq_length
    n_cut = sum(longest is not None and length > longest for length in lengths)
    if n_cut:
        logger.warning("%d of %d texts are longer than %d tokens, which is all that the model "
                       "reads; their ends are cut off", n_cut, len(texts), longest)  # fmt: skip
    return [min(length, longest) if longest else length for length in lengths]
