"""Which texts lenses are trained on and which they are judged by, as tokens."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.config.layer_surgery import SurgeryTexts
from interpflow.engine.lenses.state_pool import FIRST_PLACE
from interpflow.errors import UserError
from interpflow.inference.surgery.rows import ScoredRow, text_rows

LOG = logging.getLogger(__name__)

Row = dict[str, Any]


def lens_texts(
    tokenizer: Any,
    texts: Sequence[Mapping[str, Any]],
    prompts: Iterable[str],
    settings: SurgeryTexts,
    context: int | None,
) -> LensTexts:
    """Training documents (use "lens") without those that hold a study prompt or are a measured
    document, and evaluation documents (use "measure", split "confirm").

    texts: rows of `surgery_texts`; context: positions of the model. Raises UserError when either
    side has no document left.
    """
    training = [row for row in texts if row["use"] == "lens"]
    measured = [row for row in texts if row["use"] == "measure"]
    dirty = contaminated(training, prompts, [row["text"] for row in measured])
    if dirty:
        LOG.warning(
            "%d of %d documents for lenses hold what the study measures: left out",
            len(dirty), len(training),
        )  # fmt: skip
    clean = [row for row in training if row["document_id"] not in dirty]
    held_out = [row for row in measured if row["split"] == "confirm"]
    dropped = Counter(dirty.values())
    found = []
    for part, use in ((clean, "lens"), (held_out, "measure")):
        rows = text_rows(tokenizer, part, settings.max_tokens, context)
        read = [one for one in map(_with_context, rows.rows.values()) if one.places]
        dropped.update(f"{use}: {reason}" for reason in rows.unscored.values())
        short = len(rows.rows) - len(read)
        dropped.update({f"{use}: too_short": short} if short else {})
        if not read:
            raise UserError(
                f"no document of use {use!r} is left to "
                + ("train lenses on" if use == "lens" else "judge lenses by (split confirm)"),
                where=f"layer_surgery.texts: {len(part)} documents, left out: {dict(dropped)}",
                remedy="give more or longer texts",
            )
        found.append(read)
    return LensTexts(found[0], found[1], dict(sorted(dropped.items())))


def contaminated(
    documents: Sequence[Mapping[str, Any]], prompts: Iterable[str], measured: Iterable[str]
) -> dict[str, str]:
    """document_id → reason of documents that hold a prompt, word by word, or are a measured one.

    Case and spaces do not count.
    """
    asked = sorted({_plain(prompt) for prompt in prompts} - {_plain("")})
    others = {_plain(text) for text in measured}
    found = {}
    for row in documents:
        text = _plain(row["text"])
        if text in others:
            found[row["document_id"]] = "is a measured document"
        elif any(prompt in text for prompt in asked):
            found[row["document_id"]] = "holds a prompt"
    return found


def _plain(text: str) -> str:
    return f" {' '.join(text.lower().split())} "


def _with_context(row: ScoredRow) -> ScoredRow:
    """Without the first position: its state has no context, and often another size."""
    kept = [(place, target) for place, target in zip(row.places, row.targets, strict=True)
            if place >= FIRST_PLACE]  # fmt: skip
    places, targets = zip(*kept) if kept else ((), ())
    return ScoredRow(row.item_id, row.tokens, places, targets)


@dataclass(frozen=True)
class LensTexts:
    """Rows of tokens; dropped: how many documents were left out, by reason."""

    training: list[ScoredRow]
    held_out: list[ScoredRow]
    dropped: dict[str, int]

    @property
    def n_training_tokens(self) -> int:
        return sum(len(row.places) for row in self.training)
