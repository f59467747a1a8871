"""The first two checks of a variant's meaning: rules, then a bound on sentence embeddings.

What is compared by embedding is the question, not what is said around it. A tone that is set by
sentences before and after a question leaves the task alone, yet an insult moves the vector of the
whole text as much as another task would: of styles, the sentences set before and after are taken
off first. Obfuscated texts look to a reader like the original, which the rules check, while a
sentence encoder stumbles over them as the studied model does: they are not measured, as little as
the null operator, which is the text itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.studies.robustness.data.generation import recorded_edits
from interpflow.tables.parquet import read_table
from interpflow.tasks import problem_items
from interpflow.tasks.perturbations.meaning import keeps_meaning
from interpflow.tasks.perturbations.operators import NULL
from interpflow.tasks.perturbations.text import PerturbedText, SourceText
from interpflow.tasks.problem_items import main_words
from interpflow.tasks.word_kinds import source_text

COLUMNS = (
    "example_id", "base_id", "template_id", "source", "family", "operator", "placement", "n_edits",
    "rate", "strength", "variant", "prompt", "question_start", "question_end", "gold", "gold_kind",
    "edit_operations", "edit_starts", "edit_ends", "clean_starts", "clean_ends",
)  # fmt: skip
NOT_COMPARED = frozenset({"clean", "obfuscation"})  # families, beside the null operator
AROUND = frozenset({"before", "after"})  # edits that set sentences around a question
TOO_DIFFERENT = "similarity below the bound"

Row = dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """An example with its question and the clean one. `reason`: why it is rejected, or empty.
    `similarity`: cosine with the clean question, None where it was not measured."""

    row: Row
    question: str
    clean: str
    reason: str
    similarity: float | None


def check_meanings(settings: RobustnessSettings, examples_path: Path | str) -> list[Checked]:
    """Every example of `robustness_examples` after both checks, in its order.

    `settings`: its `semantics` and `perturbations.edit_protected`. A text that a rule rejects is
    measured as well. Raises UserError for an embedding that cannot be used, and ValueError for an
    example without its clean prompt.
    """
    rows = read_table(examples_path, "robustness_examples").select(list(COLUMNS)).to_pylist()
    sources = {row["base_id"]: _source(row) for row in rows if row["operator"] == "clean"}
    edit_protected = settings.perturbations.edit_protected
    reasons = [_rule(row, sources[row["base_id"]], edit_protected) for row in rows]
    similarities = _similarities(settings.semantics.embedding, rows, sources)
    bound = settings.semantics.min_similarity
    checked = []
    for row, reason, similarity in zip(rows, reasons, similarities, strict=True):
        if not reason and similarity is not None and similarity < bound:
            reason = TOO_DIFFERENT
        clean = sources[row["base_id"]].text
        checked.append(Checked(row, question_of(row), clean, reason, similarity))
    return checked


def question_of(row: Mapping[str, Any]) -> str:
    """The question of an example's row, without the frame of its prompt."""
    return row["prompt"][row["question_start"] : row["question_end"]]


def compared_text(row: Mapping[str, Any]) -> str:
    """What of a question is compared by embedding: of styles, all but the sentences around it."""
    start, end = row["question_start"], row["question_end"]
    if row["family"] == "style":
        edits = zip(row["edit_operations"], row["edit_starts"], row["edit_ends"], strict=True)
        for operation, edit_start, edit_end in edits:
            if operation not in AROUND:
                continue
            if edit_start == start:
                start = edit_end
            elif edit_end == end:
                end = edit_start
    return row["prompt"][start:end].strip()


def _source(row: Row) -> SourceText:
    """The clean question with its words by kind, as it was before its variants were made."""
    question = question_of(row)
    if row["source"] == problem_items.SOURCE:
        return source_text(question, main=main_words(row["template_id"], question))
    return source_text(question, answer=row["gold"] if row["gold_kind"] == "text" else None)


def _rule(row: Row, source: SourceText, edit_protected: bool) -> str:
    if row["operator"] == "clean":
        return ""
    question = question_of(row)
    # Edits between two given texts are guesses: where a piece went, they cannot say.
    is_guess = row["family"] in ("given", "rewrite")
    text = question if is_guess else PerturbedText(question, row["operator"], recorded_edits(row))
    return keeps_meaning(source, text, row["operator"], edit_protected=edit_protected)


def _similarities(
    model: str | None, rows: Sequence[Row], sources: Mapping[str, SourceText]
) -> list[float | None]:
    compared = [
        i
        for i, row in enumerate(rows)
        if row["family"] not in NOT_COMPARED and row["operator"] != NULL
    ]
    found: list[float | None] = [None] * len(rows)
    if model is None or not compared:
        return found
    from interpflow.embedding import embed_texts
    from interpflow.embedding.sentences import cosines

    texts = [compared_text(rows[i]) for i in compared]
    cleans = [sources[rows[i]["base_id"]].text for i in compared]
    try:
        vectors = embed_texts([*texts, *cleans], model=model)
    except UserError as error:
        raise UserError(
            error.what, where=f"robustness.semantics.embedding: {error.where}", remedy=error.remedy
        ) from error
    values = cosines(vectors[: len(texts)], vectors[len(texts) :])
    for i, value in zip(compared, values, strict=True):
        found[i] = float(value)
    return found
