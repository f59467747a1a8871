"""Tone and style by templates: sentences around a question and words of it written otherwise."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR
from interpflow.tasks.perturbations.text import SourceText
from interpflow.tasks.perturbations.word_lists import in_case_of
from interpflow.tasks.perturbations.words import Word, words_of

STYLES_PATH = RESOURCES_DIR / "perturbations" / "styles.yaml"
STYLES = ("polite", "urgent", "terse", "verbose", "insulting", "non_native")
STRENGTHS = (1, 2, 3)

# Operation, characters [start, end), what stands there instead.
StyleEdit = tuple[str, int, int, str]


@dataclass(frozen=True)
class StyleStrength:
    """One strength of a style. `templates`: what may stand before and after the question.
    `replace` maps words (lower case) to what is written instead, `drop` holds words left out."""

    templates: tuple[tuple[str, str], ...]
    replace: Mapping[str, str]
    drop: frozenset[str]


@cache
def load_styles(path: Path = STYLES_PATH) -> Mapping[str, tuple[StyleStrength, ...]]:
    """Style to its strengths 1 to 3; words replaced or dropped at a strength are so at stronger
    ones as well. Raises UserError naming the file, and the style where one is broken."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"styles cannot be read: {error}", where=str(path)) from error
    styles = {}
    for style in STYLES:
        try:
            styles[style] = _strengths(raw[style])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"style {style!r} is incomplete: {error!r}",
                where=str(path),
                remedy="give strengths 1, 2 and 3, each with templates, and drop, replace or none",
            ) from error
    return styles


def _strengths(raw: Mapping[int, Mapping[str, Any]]) -> tuple[StyleStrength, ...]:
    strengths: list[StyleStrength] = []
    replace: dict[str, str] = {}
    drop: set[str] = set()
    for strength in STRENGTHS:
        entry = raw[strength]
        replace.update(entry.get("replace", {}))
        drop.update(entry.get("drop", ()))
        templates = tuple((t.get("before", ""), t.get("after", "")) for t in entry["templates"])
        if not templates:
            raise ValueError(f"no templates at strength {strength}")
        # An unquoted `on` is true in YAML.
        for word in (*replace, *replace.values(), *drop, *(part for t in templates for part in t)):
            if not isinstance(word, str):
                raise TypeError(f"{word!r} at strength {strength} is no text; put it in quotes")
        strengths.append(StyleStrength(templates, dict(replace), frozenset(drop)))
    return tuple(strengths)


def style_edits(
    source: SourceText, style: str, strength: int, rng: random.Random, *, edit_protected: bool
) -> list[StyleEdit]:
    """Edits that give a question a style: the template is drawn, the words are all there are.

    Words that the task turns on are never left out or replaced, and no word after which a mark
    would stand alone is left out.
    """
    chosen = load_styles()[style][strength - 1]
    before, after = rng.choice(chosen.templates)
    edits: list[StyleEdit] = []
    if before:
        edits.append(("before", 0, 0, before))
    words = words_of(source, edit_protected=edit_protected)
    taken = 0  # end of the last edit: two words left out may share no blank
    for index, word in enumerate(words.words):
        edit = _word_edit(chosen, word, words.gap(index))
        if word.editable and not word.is_main and edit is not None and edit[1] >= taken:
            edits.append(edit)
            taken = edit[2]
    if after:
        edits.append(("after", len(source.text), len(source.text), after))
    return edits


def _word_edit(chosen: StyleStrength, word: Word, gap: str) -> StyleEdit | None:
    lower = word.text.lower()
    if lower in chosen.drop and gap == " ":
        return "drop", word.start, word.end + 1, ""
    if lower in chosen.replace:
        return "replace", word.start, word.end, in_case_of(word.text, chosen.replace[lower])
    return None
