"""Rows of the robustness tables: what a test does not state is empty."""

from __future__ import annotations

from typing import Any

from interpflow.tables.schemas import table_schema


def table_row(table: str, **known: Any) -> dict[str, Any]:
    """A row of a table with these columns; the others are null."""
    names = table_schema(table).names
    assert set(known) <= set(names), sorted(set(known) - set(names))
    return {name: known.get(name) for name in names}


def answer_row(base: str, operator: str, generated: str) -> dict[str, Any]:
    return table_row(
        "robustness_answers", example_id=f"{base}-{operator}", base_id=base, family_id=f"f{base}",
        operator=operator, generated=generated, model="m",
    )  # fmt: skip


def sample_row(base: str, operator: str, sample: int, generated: str) -> dict[str, Any]:
    return table_row(
        "robustness_samples", example_id=f"{base}-{operator}", base_id=base, operator=operator,
        model="m", sample=sample, generated=generated,
    )  # fmt: skip


def example_row(base: str, operator: str, prompt: str, gold: str | None) -> dict[str, Any]:
    """An example whose prompt is "Q: ", the question and a line "A:"."""
    return table_row(
        "robustness_examples", example_id=f"{base}-{operator}", base_id=base, family_id=f"f{base}",
        operator=operator, prompt=f"Q: {prompt}\nA:", question_start=3,
        question_end=3 + len(prompt), gold=gold, gold_kind="number" if gold else "",
    )  # fmt: skip
