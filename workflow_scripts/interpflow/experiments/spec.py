"""What a run of a model is, so that the same run is never done twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

from interpflow.config.identity import content_hash
from interpflow.errors import UserError
from interpflow.tables.provenance import SCHEMA_VERSION
from interpflow.tables.schemas import table_schema

Measure = Literal["answers", "text", "generation"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
# measure -> (table of its rows, column of the item that a row is about)
TABLES: dict[Measure, tuple[str, str]] = {
    "answers": ("surgery_answers", "example_id"),
    "text": ("surgery_text_losses", "document_id"),
    "generation": ("surgery_generations", "example_id"),
}
# What a model is called decides nothing.
MODEL_NAME = "name"


@dataclass(frozen=True)
class RunSpec:
    """One model under one plan, measured on some items.

    model: what pins the weights and the tokenizer; its "name" is kept for readers and counts for
    nothing. plan: written out. settings: everything else that decides a row, such as the number of
    new tokens. item_ids: kept sorted, each once. code: digest of the code that decides the numbers.
    """

    model: Mapping[str, Any]
    plan: str
    measure: Measure
    item_ids: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    device_kind: str = "cpu"
    seed: int = 0
    code: str = ""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UserError(
                f"there is no measure {self.measure!r}",
                where="run",
                remedy=f"use one of {', '.join(MEASURES)}",
            )
        object.__setattr__(self, "item_ids", tuple(sorted(set(self.item_ids))))

    @cached_property
    def cell(self) -> str:
        """Digest of everything but the items: rows of equal cells belong together."""
        found = self.to_dict()
        del found["item_ids"]
        found["model"] = {key: self.model[key] for key in self.model if key != MODEL_NAME}
        found["columns"] = [SCHEMA_VERSION, *table_schema(self.table).names]
        return content_hash(found)

    @cached_property
    def key(self) -> str:
        """Digest of everything."""
        return content_hash([self.cell, list(self.item_ids)])

    @property
    def table(self) -> str:
        """Name of the table of its rows."""
        return TABLES[self.measure][0]

    @property
    def item_column(self) -> str:
        """The column that says which item a row is about."""
        return TABLES[self.measure][1]

    def of_items(self, item_ids: Iterable[str]) -> RunSpec:
        """The same run over these items."""
        return replace(self, item_ids=tuple(item_ids))

    def to_dict(self) -> dict[str, Any]:
        """What `spec_of` reads back."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**named, "item_ids": list(self.item_ids)}


def spec_of(content: Mapping[str, Any]) -> RunSpec:
    """The spec that `to_dict` wrote out. Raises KeyError, TypeError or UserError for no spec."""
    return RunSpec(**{**content, "item_ids": tuple(content["item_ids"])})
