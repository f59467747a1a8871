"""Base items: a question with its gold answer, from which perturbed variants are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interpflow.tasks.perturbations.text import SourceText

GoldKind = Literal["number", "text", ""]


@dataclass(frozen=True)
class BaseItem:
    """One question, the unit that is sampled.

    family_id: the unit of inference, equal for questions that are not independent of each other
    (same template and numbers); template_id: the wording, for grouped folds.
    gold: the answer as text ("48"), None where there is none; continuation: a right continuation
    of the prompt, whose log-probability is measured.
    given: variants read with the item, (name, question).
    """

    base_id: str
    family_id: str
    template_id: str
    source: str
    question: SourceText
    gold: str | None = None
    gold_kind: GoldKind = ""
    continuation: str | None = None
    given: tuple[tuple[str, str], ...] = ()
