"""A laboratory in memory: neutral texts under plans, each run once for all who ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interpflow.agent.laboratory import METRICS, Measure, Measured
from interpflow.engine.layers.execute import TOKENS_PER_PASS
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.inference.surgery.plan_batches import Surroundings
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.inference.surgery.texts import measure_texts
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.requests import NamedPlan, named_plan

TEXT_METRICS = tuple(metric.name for metric in METRICS["text"])
# Of the model as it is, which goes through the same calls as every plan: exactly.
UNCHANGED = {"delta_loss": 0.0, "kl": 0.0, "top1_kept": 1.0}


class TextRuns:
    """Documents of one model under plans. Rows stay in memory: a document is run under a plan once,
    whoever asks first.

    explore, confirm: the two pools; neutral: token ids that mean and resample ablations read.
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
        self.model = model
        self.explore = tuple(row.item_id for row in explore)
        self.confirm = tuple(row.item_id for row in confirm)
        self._documents = {row.item_id: row for row in (*explore, *confirm)}
        self._surroundings = Surroundings(neutral=neutral, seed=seed)
        self._tokens_per_batch = tokens_per_batch
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.tokens_run = 0

    def n_tokens(self, unit: str) -> int:
        """Tokens of a document that are run."""
        return len(self._documents[unit].tokens)

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

    def _run(self, plans: Sequence[LayerPlan], units: Sequence[str]) -> None:
        documents = [self._documents[unit] for unit in units]
        found = measure_texts(
            self.model, plans, documents, self._surroundings,
            tokens_per_batch=self._tokens_per_batch,
        )  # fmt: skip
        for plan, rows in zip(plans, found):
            self._rows[str(plan)] |= {
                row["document_id"]: {"unit": row["document_id"]}
                | {name: row[name] for name in TEXT_METRICS}
                for row in rows
            }
        self.tokens_run += len(plans) * sum(len(document.tokens) for document in documents)


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
