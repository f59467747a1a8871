"""Prompt wordings as data, and prompts with the character span of each list word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import yaml

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR
from interpflow.tasks.counting.lexicon import Lexicon

TEMPLATES_PATH = RESOURCES_DIR / "templates" / "counting.yaml"
FIELDS = {"category", "categories", "words"}


@dataclass(frozen=True)
class CountingTemplate:
    """One wording: `text` with {category} or {categories} (plural) and {words} (joined by
    `separator`); the answer follows the text as `answer` with {count}, closed by `terminator`."""

    id: str
    text: str
    separator: str
    answer: str
    terminator: str


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt and, for each list word in order, its half-open character span in `text`."""

    text: str
    word_spans: tuple[tuple[int, int], ...]


def load_templates(path: Path | None = None) -> tuple[CountingTemplate, ...]:
    """Read the wordings; raises UserError naming the file and the template that is wrong."""
    source = path or TEMPLATES_PATH
    try:
        entries = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"prompt templates cannot be read: {error}", where=str(source)) from error
    if not isinstance(entries, list) or not entries:
        raise UserError("prompt templates must be a non-empty list", where=str(source))
    templates = tuple(_template(entry, source) for entry in entries)
    ids = [template.id for template in templates]
    if len(set(ids)) < len(ids):
        raise UserError("two templates have the same id", where=str(source))
    return templates


def _template(entry: object, source: Path) -> CountingTemplate:
    expected = {"id", "text", "separator", "answer", "terminator"}
    if not isinstance(entry, dict) or set(entry) != expected:
        raise UserError(
            f"a template needs exactly the keys {', '.join(sorted(expected))}", where=str(source)
        )
    template = CountingTemplate(**{key: str(value) for key, value in entry.items()})
    try:
        fields = _fields(template.text)
        answer_fields = _fields(template.answer)
    except ValueError as error:
        raise UserError(
            f"template {template.id!r} has a stray brace: {error}",
            where=str(source),
            remedy="write {{ and }} for braces that are text",
        ) from error
    if "words" not in fields or not fields & {"category", "categories"} or fields - FIELDS:
        raise UserError(
            f"template {template.id!r} must use {{words}} and {{category}} or {{categories}}",
            where=str(source),
        )
    if answer_fields != {"count"} or not template.terminator:
        raise UserError(
            f"template {template.id!r} needs {{count}} alone in its answer and a terminator, "
            "so that the answer 1 does not include 10 to 19",
            where=str(source),
        )
    return template


def _fields(text: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


def render(
    template: CountingTemplate, lexicon: Lexicon, category: str, words: tuple[str, ...]
) -> RenderedPrompt:
    """Fill a wording and record where each word of the list stands."""
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    at = 0
    for literal, field, _, _ in Formatter().parse(template.text):
        parts.append(literal)
        at += len(literal)
        if field is None:
            continue
        if field == "words":
            value = template.separator.join(words)
            start = at
            for word in words:
                spans.append((start, start + len(word)))
                start += len(word) + len(template.separator)
        else:
            value = category if field == "category" else lexicon.plural(category)
        parts.append(value)
        at += len(value)
    return RenderedPrompt("".join(parts), tuple(spans))


def answer_text(template: CountingTemplate, count: int) -> str:
    """The right continuation of a prompt, its terminator included."""
    return template.answer.format(count=count) + template.terminator
