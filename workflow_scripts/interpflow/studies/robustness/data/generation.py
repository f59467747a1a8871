"""Every variant of every prompt of the robustness study, and what could not be made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from interpflow.config.identity import content_hash, derived_seed, split_of
from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.studies.robustness.data.base_items import frame, study_items
from interpflow.studies.robustness.data.cells import CLEAN, GIVEN, REWRITE, Cell, planned_cells
from interpflow.tables.parquet import read_rows, write_table, write_table_parts
from interpflow.tables.provenance import Provenance
from interpflow.tables.schemas import table_schema
from interpflow.tasks.base_items import BaseItem
from interpflow.tasks.item_files import LoadedItems
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.text import Edit, PerturbedText, Rejected, Span, moved
from interpflow.tasks.perturbations.touched_words import (
    control_words,
    dose,
    edit_distance,
    edited_words,
    edits_between,
)
from interpflow.tasks.variant_gold import VariantGold, variant_gold
from interpflow.tasks.word_kinds import number_spans

LOGGER = logging.getLogger(__name__)
UNCHANGED = "text unchanged"
SAME_AS_SMALLER = "same text as a smaller dose"
ITEMS_PER_PART = 500  # held in memory at a time, with their variants

Row = dict[str, Any]
# Rewrites of an item by (style, variant).
Rewritten = Mapping[tuple[str, int], Row]


@dataclass(frozen=True)
class Design:
    """What every item is put through."""

    cells: Sequence[Cell]
    seed: int
    frame: tuple[str, str]
    edit_protected: bool
    rewrites: Mapping[str, Rewritten]


def generate_examples(
    settings: RobustnessSettings,
    seed: int,
    *,
    rewrites_path: Path | str | None = None,
    examples_path: Path | str,
    table_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `robustness_examples`, and `robustness_validation` of what could not be made.

    The second has a row per rejected prompt of a file (operator "clean") and per text that an
    operator does not give, with its reason; none of these has an example.
    Raises UserError for a source that cannot be read, an unknown operator, and one that is named in
    the config but gives no text for any prompt.
    """
    loaded = study_items(settings.data, seed)
    design = Design(
        planned_cells(settings),
        derived_seed(seed, "robustness", "perturbations"),
        frame(settings.data),
        settings.perturbations.edit_protected,
        {} if rewrites_path is None else _rewrites(rewrites_path),
    )
    not_made = list(_rejected_rows(loaded, settings.data.source))
    n_made: dict[str, int] = {}

    def parts() -> Iterator[pa.Table]:
        schema = table_schema("robustness_examples")
        for first in range(0, len(loaded.items), ITEMS_PER_PART):
            rows: list[Row] = []
            for item in loaded.items[first : first + ITEMS_PER_PART]:
                made, missing = item_rows(item, design)
                rows += made
                not_made.extend(missing)
            for row in rows:
                n_made[row["operator"]] = n_made.get(row["operator"], 0) + 1
            yield pa.Table.from_pylist(rows, schema=schema)

    write_table_parts(examples_path, "robustness_examples", parts(), provenance)
    _check_named(settings.perturbations.operators or (), n_made, not_made)
    write_table(table_path, "robustness_validation", not_made, provenance)
    LOGGER.info(
        "%d prompts, %d texts, %d could not be made",
        len(loaded.items), sum(n_made.values()), len(not_made),
    )  # fmt: skip


def item_rows(item: BaseItem, design: Design) -> tuple[list[Row], list[Row]]:
    """The rows of an item's texts, the clean one first, and of those that could not be made."""
    made: list[Row] = []
    missing: list[Row] = []
    seen: dict[tuple, set[str]] = {}
    for cell, text in _texts(item, design):
        gold = VariantGold(item.gold, item.continuation)
        if isinstance(text, PerturbedText):
            gold = variant_gold(item, text.text, may_change=design.edit_protected)
            smaller = seen.setdefault(cell.ladder, set())
            if text.text in smaller:
                text = Rejected(cell.operator, SAME_AS_SMALLER)
            elif gold.reason:
                text = Rejected(cell.operator, gold.reason)
            else:
                smaller.add(text.text)
        if isinstance(text, Rejected):
            missing.append(not_made_row(item.base_id, cell, text.reason))
        else:
            made.append(example_row(item, cell, text, gold, design.frame))
    return made, missing


def _texts(item: BaseItem, design: Design) -> Iterator[tuple[Cell, PerturbedText | Rejected]]:
    question = item.question
    for cell in design.cells:
        if cell.family == "clean":
            yield cell, PerturbedText(question.text, CLEAN)
        elif cell.family == "rewrite":
            yield cell, _rewritten(item, cell, design)
        else:
            yield cell, perturb(
                question, cell.operator, seed=design.seed, example_id=item.base_id,
                n_edits=cell.n_edits or 1, rate=cell.rate, placement=cell.placement,
                strength=cell.strength or 1, variant=cell.variant,
                edit_protected=design.edit_protected,
            )  # fmt: skip
    counts: dict[str, int] = {}
    for name, text in item.given:
        cell = Cell("given", f"{GIVEN}{name}", variant=counts.get(name, 0))
        counts[name] = cell.variant + 1
        yield cell, _as_given(question.text, text, cell.operator)


def _rewritten(item: BaseItem, cell: Cell, design: Design) -> PerturbedText | Rejected:
    style = cell.operator.removeprefix(REWRITE)
    row = design.rewrites.get(item.base_id, {}).get((style, cell.variant))
    if row is None:
        return Rejected(cell.operator, "not rewritten")
    if row["outcome"] != "ok" or not row["question"]:
        return Rejected(cell.operator, f"not rewritten: {row['outcome']}")
    return _as_given(item.question.text, row["question"], cell.operator)


def _as_given(original: str, text: str, operator: str) -> PerturbedText | Rejected:
    if text == original:
        return Rejected(operator, UNCHANGED)
    return edits_between(original, text, operator)


def example_row(
    item: BaseItem, cell: Cell, text: PerturbedText, gold: VariantGold, around: tuple[str, str]
) -> Row:
    """A row of `robustness_examples`; every character is counted in the whole prompt."""
    before, after = around
    prompt = f"{before}{text.text}{after}"
    shift = len(before)
    clean_words, words = edited_words(item.question.text, text)
    clean_controls, controls = control_words(item.question, text)
    numbers: Sequence[Span]
    if cell.family in ("given", "rewrite"):
        numbers = number_spans(text.text)
    else:
        numbers = [moved(span, text.edits) for span in number_spans(item.question.text)]
    return {
        "example_id": content_hash([*_identity(item.base_id, cell), prompt]),
        "base_id": item.base_id,
        "family_id": item.family_id,
        "template_id": item.template_id,
        "split": split_of(item.family_id),
        "source": item.source,
        **_cell_columns(cell),
        "prompt": prompt,
        "question_start": shift,
        "question_end": shift + len(text.text),
        "gold": gold.gold,
        "gold_kind": item.gold_kind,
        "continuation": gold.continuation,
        "edit_operations": [edit.operation for edit in text.edits],
        **_columns("edit", [(edit.new_start, edit.new_end) for edit in text.edits], shift),
        **_columns("clean", [(edit.start, edit.end) for edit in text.edits], shift),
        **_columns("word", words, shift),
        **_columns("clean_word", clean_words, shift),
        **_columns("control", controls, shift),
        **_columns("clean_control", clean_controls, shift),
        **_columns("number", numbers, shift),
        "edit_distance": edit_distance(item.question.text, text.text),
        "dose": dose(item.question.text, text.text),
    }


def not_made_row(base_id: str, cell: Cell, reason: str) -> Row:
    """A row of `robustness_validation` of a text that does not exist."""
    columns = _cell_columns(cell)
    return {
        "example_id": content_hash(_identity(base_id, cell)),
        "base_id": base_id,
        **columns,
        "accepted": False,
        "reason": reason,
        "similarity": None,
        "verdict": None,
        "judges": [],
        "votes": [],
    }


def recorded_edits(row: Mapping[str, Any]) -> tuple[Edit, ...]:
    """The edits of an example's row, in characters of the questions."""
    shift = row["question_start"]
    spans = zip(
        row["edit_operations"], row["clean_starts"], row["clean_ends"], row["edit_starts"],
        row["edit_ends"], strict=True,
    )  # fmt: skip
    return tuple(
        Edit(operation, start - shift, end - shift, new_start - shift, new_end - shift)
        for operation, start, end, new_start, new_end in spans
    )


def _cell_columns(cell: Cell) -> Row:
    return {
        "family": cell.family,
        "operator": cell.operator,
        "placement": cell.placement,
        "n_edits": cell.n_edits,
        "rate": cell.rate,
        "strength": cell.strength,
        "variant": cell.variant,
    }


def _identity(base_id: str, cell: Cell) -> list[Any]:
    return [
        base_id, cell.operator, cell.placement, cell.n_edits, cell.rate, cell.strength,
        cell.variant,
    ]  # fmt: skip


def _columns(name: str, spans: Sequence[Span], shift: int) -> Row:
    return {
        f"{name}_starts": [start + shift for start, _ in spans],
        f"{name}_ends": [end + shift for _, end in spans],
    }


def _rewrites(path: Path | str) -> dict[str, dict[tuple[str, int], Row]]:
    found: dict[str, dict[tuple[str, int], Row]] = {}
    for row in read_rows(path, "robustness_rewrites"):
        found.setdefault(row["base_id"], {})[row["style"], row["variant"]] = row
    return found


def _rejected_rows(loaded: LoadedItems, source: str) -> Iterator[Row]:
    for rejected in loaded.rejected:
        name = f"{GIVEN}{rejected.variant}" if rejected.variant else CLEAN
        cell = Cell("given" if rejected.variant else "clean", name)
        base_id = rejected.base_id or f"{source} row {rejected.row}"
        yield not_made_row(base_id, cell, rejected.reason)


def _check_named(named: Sequence[str], n_made: Mapping[str, int], not_made: Sequence[Row]) -> None:
    for name in named:
        if not n_made.get(name):
            reasons = sorted({row["reason"] for row in not_made if row["operator"] == name})
            raise UserError(
                f"the operator {name!r} gives no text for any prompt: {', '.join(reasons)}",
                where="robustness.perturbations.operators",
                remedy="leave it out, or ask for fewer edits (n_edits)",
            )
