"""A laboratory in memory: neutral texts under plans, each run once for all who ask."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interpflow.agent.laboratory import Measure, Measured
from interpflow.engine.layers.execute import TOKENS_PER_PASS, PlanRunner, PlanStates
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.inference.surgery.readings import PlaceReader, places_at_once
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.requests import NamedPlan, named_plan

# Metrics of the measure `text` of the model as it is, exactly.
UNCHANGED = {"delta_loss": 0.0, "kl": 0.0, "top1_kept": 1.0}


class TextRuns:
    """Documents of one model under plans. Rows stay in memory: a document is run under a plan once,
    whoever asks first, and without a plan once.

    The intact model's states are kept, in other batches than those in which plans are run later:
    in float32 the loss of a document moves by some 1e-7 by that, in narrower types by more, for
    which reason they are refused. explore, confirm: the two pools; neutral: token ids that mean and
    resample ablations read.
    """

    def __init__(
        self,
        model: Model,
        explore: Sequence[ScoredRow],
        confirm: Sequence[ScoredRow],
        *,
        neutral: Sequence[Sequence[int]] = (),
        seed: int = 0,
        tokens_per_batch: int = TOKENS_PER_PASS,
    ) -> None:
        if model.dtype not in (torch.float32, torch.float64):
            raise UserError(f"agents cannot be judged in {model.dtype}", remedy="use float32")
        self.model = model
        self.explore = tuple(row.item_id for row in explore)
        self.confirm = tuple(row.item_id for row in confirm)
        self._documents = {row.item_id: row for row in (*explore, *confirm)}
        self._neutral, self._seed = neutral, seed
        self._tokens_per_pass = min(tokens_per_batch, TOKENS_PER_PASS, places_at_once(model))
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        self._intact: dict[str, tuple[Tensor, float]] = {}
        self.tokens_run = 0

    def n_tokens(self, unit: str) -> int:
        """Tokens of a document that are run."""
        return len(self._documents[unit].tokens)

    def loss(self, units: Sequence[str]) -> float:
        """Mean over documents of the intact model's loss, nats per token."""
        self._know_intact(units)
        return sum(self._intact[unit][1] for unit in units) / len(units)

    def rows(self, plans: Sequence[LayerPlan], units: Sequence[str]) -> dict[str, list[Any]]:
        """By plan, written out, a row of each document with "unit" and the metrics of text."""
        wanted: dict[tuple[str, ...], list[LayerPlan]] = {}
        for plan in dict.fromkeys(plans):
            known = self._rows.setdefault(str(plan), {})
            if plan.is_identity(self.model.n_layers):
                known |= {unit: {"unit": unit, **UNCHANGED} for unit in units}
            missing = tuple(unit for unit in units if unit not in known)
            if missing:
                wanted.setdefault(missing, []).append(plan)
        for missing, some in wanted.items():
            self._run(some, missing)
        return {str(plan): [self._rows[str(plan)][unit] for unit in units] for plan in plans}

    def means(self, plans: Sequence[LayerPlan], units: Sequence[str]) -> dict[str, float]:
        """By plan, written out, the mean over documents of the change of the loss."""
        found = self.rows(plans, units)
        return {
            plan: math.fsum(row["delta_loss"] for row in rows) / len(rows)
            for plan, rows in found.items()
        }

    def _run(self, plans: Sequence[LayerPlan], units: Sequence[str]) -> None:
        """Rows of documents under plans, against the states that the intact model has there."""
        self._know_intact(units)
        readers: dict[tuple[int, ...], PlaceReader] = {}
        for found in self._states(plans, units):
            if found.rows not in readers:
                readers.clear()
                intact = torch.cat([self._intact[units[row]][0] for row in found.rows])
                readers[found.rows] = self._reader(intact, [units[row] for row in found.rows])
            readings = readers[found.rows].read(found.states).stacked
            known = self._rows[str(plans[found.plan])]
            for row, values in zip(found.rows, readings.split(list(found.n_places), dim=1)):
                log_prob, kl, top1_kept, _ = values.mean(dim=1).tolist()
                unit = units[row]
                delta = -log_prob - self._intact[unit][1]
                known[unit] = {"unit": unit, "delta_loss": delta, "kl": kl, "top1_kept": top1_kept}

    def _know_intact(self, units: Sequence[str]) -> None:
        """Have the intact model's states and loss of documents; all that are missing at once."""
        if all(unit in self._intact for unit in units):
            return
        missing = [unit for unit in self._documents if unit not in self._intact]
        for found in self._states([LayerPlan.of(range(self.model.n_layers))], missing):
            readings = self._reader(found.states, [missing[row] for row in found.rows])
            log_prob = readings.read(found.states).log_prob.split(list(found.n_places))
            for (row, states), mine in zip(found.by_row(), log_prob):
                self._intact[missing[row]] = (states.clone(), -float(mine.mean()))

    def _states(self, plans: Sequence[LayerPlan], units: Sequence[str]) -> Iterator[PlanStates]:
        documents = [self._documents[unit] for unit in units]
        runner = PlanRunner(
            self.model, plans, neutral=self._neutral, seed=self._seed,
            tokens_per_pass=self._tokens_per_pass,
        )  # fmt: skip
        self.tokens_run += len(plans) * sum(len(document.tokens) for document in documents)
        return runner.states(
            [document.tokens for document in documents],
            [document.places for document in documents],
        )

    def _reader(self, intact: Tensor, units: Sequence[str]) -> PlaceReader:
        targets = [token for unit in units for token in self._documents[unit].targets]
        return PlaceReader(self.model, intact, torch.tensor(targets))


class TextLaboratory:
    """What one session sees of `TextRuns`: the protocol `interpflow.agent.laboratory.Laboratory`,
    without tasks. Tokens count as if nobody had run anything before the session, so that what one
    agent ran is not free for the next."""

    def __init__(self, runs: TextRuns) -> None:
        self._runs = runs
        self._seen: set[tuple[str, str]] = set()

    def describe(self) -> dict[str, Any]:
        runs = self._runs
        return {
            "n_layers": runs.model.n_layers,
            "n_heads": runs.model.n_heads,
            "documents": {"explore": len(runs.explore), "confirm": len(runs.confirm)},
            "tasks": {},
        }

    def plan(self, request: Mapping[str, Any]) -> NamedPlan:
        """Raises UserError for what this model does not have, and for patches: texts have no
        donors."""
        named = named_plan(request, self._runs.model.n_layers, self._runs.model.n_heads)
        if any(step.ablation and step.ablation.method == "patch" for step in named.plan.steps):
            raise UserError(
                "neutral texts have no donor to be patched from", where=named.label,
                remedy="ablate by zero, mean or resample",
            )  # fmt: skip
        return named

    def explore_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        return self._runs.explore if measure == "text" else ()

    def confirm_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        return self._runs.confirm if measure == "text" else ()

    def forward_tokens(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> int:
        return sum(self._runs.n_tokens(unit) for _, unit in self._new(plans, units))

    def measure(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> Measured:
        """Raises UserError for another measure than text."""
        if measure != "text":
            raise UserError(f"nothing but texts is measured here, no {measure}", where="measure")
        tokens = self.forward_tokens(plans, measure, task, units)
        self._seen |= self._new(plans, units)
        rows = self._runs.rows([named.plan for named in plans], units)
        return Measured(rows, dict.fromkeys(rows, ()), tokens, tokens == 0)

    def _new(self, plans: Sequence[NamedPlan], units: Sequence[str]) -> set[tuple[str, str]]:
        """Pairs of plan and document that this session has not paid for."""
        return {(str(named.plan), unit) for named in plans for unit in units} - self._seen
