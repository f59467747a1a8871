"""How far answers to variants mean what the answers to the clean prompts mean."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.config.robustness import RobustnessSettings
from interpflow.embedding import embed_texts, embedding_identity
from interpflow.embedding.entailment import entailment_probabilities
from interpflow.embedding.sentences import cosines
from interpflow.errors import UserError
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

Row = Mapping[str, Any]
CLEAN = "clean"

logger = logging.getLogger("robustness.semantics")


@dataclass(frozen=True)
class Comparison:
    """Two answers, `reference` from the clean prompt.

    kind: "answer" (the greedy answers to a variant and to the clean prompt), "baseline" (two drawn
    answers to the clean prompt) or "sampled" (drawn answers to a variant and to the clean prompt),
    which alone may be set against the baseline: greedy answers vary less than drawn ones.
    """

    example_id: str
    base_id: str
    family_id: str
    operator: str
    kind: str
    reference: str
    answer: str


def compare_answers(
    name: str,
    settings: RobustnessSettings,
    *,
    answers_path: Path | str,
    samples_path: Path | str,
    device: str = "cpu",
    semantics_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `robustness_semantics` of one model.

    Measures: "cosine" of the sentence embeddings; with a model of natural-language inference,
    "nli_forward", the probability that the variant's answer follows from the clean prompt's, and
    "nli_backward", the reverse. Equal answers have 1 by all three, without any model. Of numbers
    alone an embedding says little: 17 and 18 are near each other. Without drawn answers there is no
    baseline.
    """
    answers = read_rows(answers_path, "robustness_answers")
    samples = read_rows(samples_path, "robustness_samples")
    pairs = [
        *answer_comparisons(answers, where=str(answers_path)),
        *sample_comparisons(samples, answers),
    ]
    scoring = settings.scoring
    origin = provenance or Provenance()
    measured: dict[str, np.ndarray] = {}
    if scoring.embedding is not None:
        measured["cosine"] = answer_cosines(pairs, scoring.embedding, device)
        origin = origin.with_model("embedding", embedding_identity(scoring.embedding))
    if scoring.nli is not None:
        measured |= entailments(pairs, scoring.nli, device)
        origin = origin.with_model("nli", embedding_identity(scoring.nli))
    rows = [
        {
            **{key: getattr(pair, key) for key in ("example_id", "base_id", "family_id")},
            "operator": pair.operator,
            "model": name,
            "kind": pair.kind,
            "measure": measure,
            "value": float(values[i]),
        }
        for i, pair in enumerate(pairs)
        for measure, values in measured.items()
    ]
    write_table(semantics_path, "robustness_semantics", rows, origin)
    n_equal = sum(pair.reference == pair.answer for pair in pairs)
    logger.info("%d pairs of answers compared, %d of them equal%s", len(pairs), n_equal,
                "" if samples else "; no drawn answers, so no baseline")  # fmt: skip


def answer_comparisons(answers: Sequence[Row], *, where: str = "") -> list[Comparison]:
    """The greedy answer to every variant beside that to its clean prompt, in order.

    Raises UserError where a base item has no clean answer.
    """
    clean = {row["base_id"]: row for row in answers if row["operator"] == CLEAN}
    variants = [row for row in answers if row["operator"] != CLEAN]
    lonely = sorted({row["base_id"] for row in variants} - set(clean))
    if lonely:
        raise UserError(
            f"{len(lonely)} items have no answer to their clean prompt, such as {lonely[0]!r}",
            where=where,
            remedy="make the table of answers again",
        )
    return [_comparison(row, row, clean[row["base_id"]], "answer") for row in variants]


def sample_comparisons(samples: Sequence[Row], answers: Sequence[Row]) -> list[Comparison]:
    """Drawn answers: each to a clean prompt beside the next one, and each to a variant beside the
    clean prompt's of the same number. `answers` tells which example is whose."""
    by_example: dict[str, dict[int, Row]] = {}
    for row in samples:
        by_example.setdefault(row["example_id"], {})[row["sample"]] = row
    clean = {row["base_id"]: row["example_id"] for row in answers if row["operator"] == CLEAN}
    found = []
    for row in answers:
        drawn = by_example.get(row["example_id"], {})
        if row["operator"] == CLEAN:
            ordered = [drawn[number] for number in sorted(drawn)]
            found += [_comparison(row, b, a, "baseline") for a, b in pairwise(ordered)]
        else:
            beside = by_example.get(clean.get(row["base_id"], ""), {})
            found += [
                _comparison(row, drawn[number], beside[number], "sampled")
                for number in sorted(set(drawn) & set(beside))
            ]
    return found


def answer_cosines(pairs: Sequence[Comparison], model: str, device: str = "cpu") -> np.ndarray:
    """Cosine [pair] of the two answers' sentence embeddings; exactly 1 for equal answers."""
    found = np.ones(len(pairs))
    unequal = [i for i, pair in enumerate(pairs) if pair.reference != pair.answer]
    if unequal:
        texts = [text for i in unequal for text in (pairs[i].reference, pairs[i].answer)]
        embedded = embed_texts(texts, model=model, device=device, progress=logger)
        found[unequal] = cosines(embedded[0::2], embedded[1::2])
    return found


def entailments(
    pairs: Sequence[Comparison], model: str, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Probabilities [pair] that the answer follows from the reference ("nli_forward") and the
    reference from the answer ("nli_backward"); 1 for equal answers: a text follows from itself."""
    unequal = [i for i, pair in enumerate(pairs) if pair.reference != pair.answer]
    forward = [(pairs[i].reference, pairs[i].answer) for i in unequal]
    backward = [(answer, reference) for reference, answer in forward]
    both = entailment_probabilities(
        [*forward, *backward], model=model, device=device, progress=logger
    )
    found = {}
    for measure, values in zip(("nli_forward", "nli_backward"), np.split(both, 2), strict=True):
        found[measure] = np.ones(len(pairs))
        found[measure][unequal] = values
    return found


def _comparison(example: Row, answer: Row, reference: Row, kind: str) -> Comparison:
    return Comparison(
        example["example_id"], example["base_id"], example["family_id"], example["operator"], kind,
        reference["generated"].strip(), answer["generated"].strip(),
    )  # fmt: skip
