"""What an agent sees of a model in the study: its items, its texts, and the store of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from interpflow.agent.laboratory import METRICS, Measure, Measured
from interpflow.errors import UserError
from interpflow.plans.requests import NamedPlan, named_plan
from interpflow.studies.layer_surgery.sweep.laboratory import ModelLaboratory

Row = Mapping[str, Any]
EXPLORED_SPLITS = ("discover", "develop")


class StoreLaboratory:
    """The protocol `interpflow.agent.laboratory.Laboratory` over a `ModelLaboratory`.

    Explored are the discover and develop items of analysed tasks, and such documents of use
    "measure"; tests read confirm items, and documents of use "agent", which nothing else reads.
    intact: rows of the table `surgery_intact`; gates: the content of the study's gate document,
    whose "tasks" say which are analysed.
    """

    def __init__(
        self, laboratory: ModelLaboratory, intact: Sequence[Row], gates: Mapping[str, Any]
    ) -> None:
        self._laboratory = laboratory
        self._tasks = {name: task for name, task in gates["tasks"].items() if task["analysed"]}
        self._items: dict[tuple[str, str], dict[str, list[str]]] = {}
        for row in intact:
            if not row["unscored"] and row["task"] in self._tasks:
                pool = "explore" if row["split"] in EXPLORED_SPLITS else "confirm"
                families = self._items.setdefault((pool, row["task"]), {})
                families.setdefault(row["family_id"], []).append(row["example_id"])

    def describe(self) -> dict[str, Any]:
        laboratory = self._laboratory
        tasks = {}
        for name, task in sorted(self._tasks.items()):
            explored = self._items.get(("explore", name), {})
            first = next((id for ids in explored.values() for id in ids), None)
            shown = laboratory.items[first] if first else {}
            tasks[name] = {
                "explore": len(explored),
                "confirm": len(self._items.get(("confirm", name), {})),
                "accuracy": task["accuracy"],
                "example": {key: shown.get(key, "") for key in ("prompt", "answer")},
            }
        documents = {pool: len(ids) for pool, ids in self._documents.items()}
        return {
            "n_layers": laboratory.n_layers,
            "n_heads": laboratory.n_heads,
            "documents": documents,
            "tasks": tasks,
        }

    def plan(self, request: Mapping[str, Any]) -> NamedPlan:
        return named_plan(request, self._laboratory.n_layers, self._laboratory.n_heads)

    def explore_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        return self._units("explore", measure, task)

    def confirm_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        return self._units("confirm", measure, task)

    def forward_tokens(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> int:
        ids = list(self._unit_of(measure, task, units))
        return self._laboratory.new_tokens(plans, measure, ids)

    def measure(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> Measured:
        """Raises UserError for a patch on text: a document has no donor."""
        _check_donors(plans, measure)
        unit_of = self._unit_of(measure, task, units)
        before = self._laboratory.forward_tokens
        found = self._laboratory.measure(plans, measure, list(unit_of))
        rows = {
            plan: [_seen(unit_of[id], row, measure) for id, row in zip(unit_of, each.rows)]
            for plan, each in found.items()
        }
        runs = {plan: each.runs for plan, each in found.items()}
        tokens = self._laboratory.forward_tokens - before
        return Measured(rows, runs, tokens, all(each.n_new == 0 for each in found.values()))

    @cached_property
    def _documents(self) -> dict[str, list[str]]:
        """Documents with a score, of each pool, in the order of their ids."""
        scored = self._laboratory.text_rows.rows
        pools: dict[str, list[str]] = {"explore": [], "confirm": []}
        for name, text in sorted(self._laboratory.texts.items()):
            if name not in scored:
                continue
            if text["use"] == "measure" and text["split"] in EXPLORED_SPLITS:
                pools["explore"].append(name)
            elif text["use"] == "agent":
                pools["confirm"].append(name)
        return pools

    def _units(self, pool: str, measure: Measure, task: str | None) -> Sequence[str]:
        if measure == "text":
            return self._documents[pool]
        return sorted(self._items.get((pool, task or ""), {}))

    def _unit_of(self, measure: Measure, task: str | None, units: Sequence[str]) -> dict[str, str]:
        """By item or document that is measured, its unit."""
        if measure == "text":
            return {unit: unit for unit in units}
        families = {
            **self._items.get(("explore", task or ""), {}),
            **self._items.get(("confirm", task or ""), {}),
        }
        return {id: unit for unit in units for id in families[unit]}


def _check_donors(plans: Sequence[NamedPlan], measure: Measure) -> None:
    for named in plans:
        methods = {step.ablation.method for step in named.plan.steps if step.ablation}
        if measure == "text" and "patch" in methods:
            raise UserError(
                "neutral texts have no donor to be patched from", where=named.label,
                remedy="measure answers, or ablate by zero, mean or resample",
            )  # fmt: skip


def _seen(unit: str, row: Row, measure: Measure) -> dict[str, Any]:
    """The metrics of a row as floats; NaN where there is none."""
    values = {metric.name: row[metric.name] for metric in METRICS[measure]}
    return {"unit": unit} | {
        name: math.nan if value is None else float(value) for name, value in values.items()
    }
