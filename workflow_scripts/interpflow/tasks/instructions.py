"""The built-in instructions: what people ask of assistants, most without one right answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from interpflow.config.identity import content_hash
from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR
from interpflow.tasks.base_items import BaseItem
from interpflow.tasks.word_kinds import source_text

INSTRUCTIONS_PATH = RESOURCES_DIR / "templates" / "instructions.yaml"
SOURCE = "instructions"


@cache
def instruction_items(path: Path = INSTRUCTIONS_PATH) -> tuple[BaseItem, ...]:
    """Every instruction of the file, in its order; the kinds are the templates of grouped folds.

    Raises UserError naming the file where it is missing or broken.
    """
    items: list[BaseItem] = []
    for kind, entries in _read(path)["instructions"].items():
        for entry in entries:
            text, gold = entry["text"], entry.get("gold")
            base_id = content_hash(["instruction", text])
            items.append(
                BaseItem(
                    base_id=base_id,
                    family_id=base_id,
                    template_id=kind,
                    source=SOURCE,
                    question=source_text(text, answer=gold),
                    gold=gold,
                    gold_kind="" if gold is None else "text",
                    continuation=None if gold is None else f" {gold}",
                )
            )
    return tuple(items)


def instruction_frame(path: Path = INSTRUCTIONS_PATH) -> str:
    """What stands around an instruction, which stands for {question}."""
    return _read(path)["prompt"]


@cache
def _read(path: Path) -> dict:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = [entry for kind in raw["instructions"].values() for entry in kind]
        complete = all(str(entry["text"]).strip() for entry in entries)
        complete = complete and raw["prompt"].count("{question}") == 1
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"instructions cannot be read: {error!r}", where=str(path)) from error
    if not complete:
        raise UserError("an instruction or the prompt around it is empty", where=str(path))
    return raw
