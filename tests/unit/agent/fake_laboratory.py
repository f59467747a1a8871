"""A laboratory without a model: blocks do known things, and plans cost what they do not do right.

The model it stands for runs functions 0 … L−1 in order. Its loss on a document is what is missing,
repeated, out of order or wrongly scaled, each times a factor of the document's own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interpflow.agent.laboratory import Measure, Measured
from interpflow.config.layer_surgery import SurgeryAgent
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.requests import NamedPlan, named_plan

N_FUNCTIONS = 8
TOKENS = 60
MISSING, REPEATED, INVERTED, SCALED = 0.4, 0.25, 0.12, 0.3
SPREAD = 0.4  # of a document's factors


def settings(**more: Any) -> SurgeryAgent:
    return SurgeryAgent.model_validate({"smallest_effect": 0.02, **more})


@dataclass
class FakeLaboratory:
    """plant: none, or an anomaly of `blocks`. Counts what it is asked to run, as a store would:
    `fresh` tokens, and units by plan that were run before."""

    plant: str = ""
    blocks: tuple[int, ...] = ()
    factor: float = 3.0
    n_explore: int = 60
    n_confirm: int = 800
    done: set[tuple[str, str]] = field(default_factory=set)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    @property
    def contents(self) -> list[tuple[int | None, float]]:
        """What each block of the model does: a function and its scale."""
        found: list[tuple[int | None, float]] = [(i, 1.0) for i in range(N_FUNCTIONS)]
        if self.plant == "no_op":
            found[self.blocks[0]] = (None, 1.0)
        elif self.plant == "swapped":
            a, b = self.blocks
            found[a], found[b] = found[b], found[a]
        elif self.plant == "scaled":
            found[self.blocks[0]] = (self.blocks[0], self.factor)
        elif self.plant == "duplicated":
            found.insert(self.blocks[0], found[self.blocks[0]])
        return found

    def describe(self) -> dict[str, Any]:
        task = {"explore": 20, "confirm": 60, "accuracy": 0.9,
                "example": {"prompt": "2 + 2 =", "answer": " 4"}}  # fmt: skip
        return {
            "n_layers": len(self.contents), "n_heads": 2, "tasks": {"sums": task},
            "documents": {"explore": self.n_explore, "confirm": self.n_confirm},
        }  # fmt: skip

    def plan(self, request: Mapping[str, Any]) -> NamedPlan:
        return named_plan(request, len(self.contents), 2)

    def explore_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        n = self.n_explore if measure == "text" else 20
        return [f"{measure}-explore-{i}" for i in range(n)]

    def confirm_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        n = self.n_confirm if measure == "text" else 60
        return [f"{measure}-confirm-{i}" for i in range(n)]

    def forward_tokens(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> int:
        wanted = {(text, unit) for text in {str(p.plan) for p in plans} for unit in units}
        return TOKENS * len(wanted - self.done)

    def measure(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> Measured:
        tokens = self.forward_tokens(plans, measure, task, units)
        texts = {str(plan.plan): plan for plan in plans}
        self.asked += [(text, tuple(units)) for text in texts]
        self.done |= {(text, unit) for text in texts for unit in units}
        rows = {
            text: [
                self._row(unit, change, measure)
                for unit, change in zip(units, self.changes(plan.plan, units), strict=True)
            ]
            for text, plan in texts.items()
        }
        runs = {text: (hashlib.sha256(text.encode()).hexdigest()[:8],) for text in rows}
        return Measured(rows, runs, tokens, tokens == 0)

    def changes(self, plan: LayerPlan, units: Sequence[str]) -> list[float]:
        """Loss of each unit under the plan minus under the model as it is."""
        intact = LayerPlan.of(range(len(self.contents)))
        costs, before = self._costs(plan), self._costs(intact)
        names = sorted({*costs, *before})
        moved = np.array([costs.get(name, 0.0) - before.get(name, 0.0) for name in names])
        return [float(moved @ _factors(unit, names)) if names else 0.0 for unit in units]

    def _costs(self, plan: LayerPlan) -> dict[str, float]:
        """What is wrong with what a plan runs, by name of the fault."""
        run = [
            (self.contents[step.blocks[0]][0], self.contents[step.blocks[0]][1] * step.factor)
            for step in plan.steps
        ]
        order = [function for function, _ in run if function is not None]
        found: dict[str, float] = {}
        for f in range(N_FUNCTIONS):
            if f not in order:
                found[f"missing {f}"] = MISSING * (1.5 if f == 0 else 1.0)
            elif order.count(f) > 1:
                found[f"repeated {f}"] = REPEATED
        for function, scale in run:
            if function is not None and scale != 1:
                found[f"scaled {function}"] = SCALED * abs(math.log2(abs(scale) + 1e-3))
        for i, first in enumerate(order):
            for second in order[i + 1 :]:
                if first > second:
                    found[f"order {second} {first}"] = INVERTED
        return found

    def _row(self, unit: str, change: float, measure: Measure) -> dict[str, Any]:
        kept = math.exp(-abs(change))
        shared = {"unit": unit, "kl": abs(change), "top1_kept": kept}
        if measure == "text":
            return {**shared, "delta_loss": change}
        return {**shared, "delta_log_prob": -change, "answered": kept}


@dataclass
class BoundaryLaboratory(FakeLaboratory):
    """Every claim is just false: what is skipped costs exactly the smallest effect on average, and
    every other change improves by exactly that much. `seed` draws the documents."""

    seed: int = 0

    def changes(self, plan: LayerPlan, units: Sequence[str]) -> list[float]:
        if plan.is_identity(N_FUNCTIONS):
            return [0.0 for _ in units]
        mean, name = (0.02 if plan.n_blocks < N_FUNCTIONS else -0.02), f"{self.seed} {plan}"
        return [mean + 0.05 * _normal(f"{name} {unit}") for unit in units]


_KNOWN: dict[str, float] = {}


def _factors(unit: str, names: Sequence[str]) -> np.ndarray:
    return np.array([math.exp(SPREAD * _normal(f"{unit} {name}")) for name in names])


def _normal(name: str) -> float:
    """A standard normal draw that belongs to a name."""
    if name not in _KNOWN:
        digest = hashlib.sha256(name.encode()).digest()
        u, v = (int.from_bytes(digest[i : i + 6], "big") / 2**48 for i in (0, 6))
        _KNOWN[name] = math.sqrt(-2 * math.log(u + 1e-12)) * math.cos(2 * math.pi * v)
    return _KNOWN[name]
