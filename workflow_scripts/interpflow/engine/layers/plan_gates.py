"""Proof, before results are written, that a layer plan runs what it says.

Each gate compares a plan with a route that shares nothing with it: the model's own forward, changed
where need be by a hook on the Hugging Face module itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interpflow.engine.gate_report import GateReport, GateRow
from interpflow.engine.layers.execute import PlanRunner
from interpflow.engine.model import Model, full_precision
from interpflow.engine.passes import hooks
from interpflow.plans.layer_plan import Ablation, LayerPlan, Step

# Largest difference, as a share of the largest number compared.
TOLERANCE = 1e-5
# Of types with fewer digits than float32.
NARROW_TOLERANCE = 2e-2


def check_plan_execution(
    model: Model, rows: Sequence[Sequence[int]], *, tolerance: float | None = None
) -> GateReport:
    """The gates on rows of token ids, cut to the shortest of them.

    tolerance: largest difference as a share of the largest number, by default 1e-5, or 0.02 in
    types narrower than float32. Raises RuntimeError naming the gates that failed.
    """
    length = min(map(len, rows))
    narrow = torch.finfo(model.dtype).eps > torch.finfo(torch.float32).eps
    if tolerance is None:
        tolerance = NARROW_TOLERANCE if narrow else TOLERANCE
    report = GateReport(_Gates(model, [list(row[:length]) for row in rows], tolerance).rows(), {})
    report.require()
    return report


class _Gates:
    def __init__(self, model: Model, rows: list[list[int]], tolerance: float) -> None:
        self._model, self._rows, self._tolerance = model, rows, tolerance
        self._ids = torch.tensor(rows, device=model.device)
        n = model.n_layers
        self._intact = LayerPlan.of(range(n))
        # A deep model is looked at in three places: a gate costs a forward for each.
        self._blocks = list(range(n)) if n <= 12 else sorted({0, n // 2, n - 1})

    def rows(self) -> tuple[GateRow, ...]:
        before, depths = self._own_forward()
        kept = {block: LayerPlan.of(range(block)) for block in self._blocks}
        skips = {block: self._without(block) for block in self._blocks}
        zeroed = {
            block: self._changed(Step((block,), Ablation("block", "zero")))
            for block in self._blocks
        }
        plans = [self._intact, *kept.values(), *skips.values(), *zeroed.values()]
        found = self._plan_states(plans)
        logits = {plan: self._logits(states) for plan, states in found.items()}
        skipped = {block: self._own_forward(without=block)[0] for block in self._blocks}
        unmoved = logits[self._intact]
        moved = max(self._gap(logits[plan], unmoved) for plan in skips.values())
        after, _ = self._own_forward()
        return (
            self._same("identity", {"": (unmoved, before)}, "the model's own logits"),
            self._same(
                "keep_first",
                {str(b): (found[plan], depths[b]) for b, plan in kept.items()},
                "the residual that the model's own forward hands to the block",
            ),
            self._same(
                "skip",
                {str(b): (logits[plan], skipped[b]) for b, plan in skips.items()},
                "the model's own forward with a hook that takes back what the block adds",
            ),
            self._same(
                "zero_block",
                {str(b): (logits[plan], skipped[b]) for b, plan in zeroed.items()},
                "the model's own forward with a hook that takes back what the block adds",
            ),
            GateRow(
                "moved", moved > self._tolerance, moved, self._tolerance,
                "skipping some block changes the logits by more than the tolerance",
            ),
            self._fast_linears(unmoved),
            self._swap_twice(unmoved),
            self._n_blocks(),
            self._same("untouched", {"": (after, before)}, "the model's own logits before", 0.0),
        )  # fmt: skip

    def _plan_states(self, plans: Sequence[LayerPlan], fast: bool = False) -> dict[Any, Tensor]:
        """States [row, position, d_model] that each plan ends with."""
        size = self._ids.numel()
        runner = PlanRunner(self._model, plans, tokens_per_pass=size, fast=fast)
        every = [list(range(len(row))) for row in self._rows]
        found = {}
        for each in runner.states(self._rows, every):
            found[runner.plans[each.plan]] = each.states.view(*self._ids.shape, -1)
        return found

    def _logits(self, states: Tensor) -> Tensor:
        with torch.no_grad():
            return full_precision(self._model.architecture.unembed(states))

    def _own_forward(self, without: int | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits of the model's own forward, and what it hands to each block.

        without: the block whose output is replaced by its input.
        """
        inputs: dict[int, Tensor] = {}

        def look(block: int) -> Callable[[Tensor], None]:
            def keep(state: Tensor) -> None:
                inputs[block] = state.detach().clone()

            return keep

        parts = self._model.architecture.blocks
        with torch.no_grad(), hooks.removed_afterwards() as handles:
            for block, each in enumerate(parts):
                handles.append(hooks.on_input(each.block, look(block)))
            if without is not None:
                handles.append(hooks.on_output(parts[without].block, lambda _: inputs[without]))
            logits = self._model.module(input_ids=self._ids, use_cache=False).logits
        return full_precision(logits), inputs

    def _fast_linears(self, unmoved: Tensor) -> GateRow:
        fast = self._logits(self._plan_states([self._intact], fast=True)[self._intact])
        return self._same("fast", {"": (fast, unmoved)}, "the model's own linears")

    def _swap_twice(self, unmoved: Tensor) -> GateRow:
        order = list(range(self._model.n_layers))
        for _ in range(2):
            order[0], order[-1] = order[-1], order[0]
        plan = LayerPlan.of(order)
        again = self._logits(self._plan_states([plan])[plan])
        return self._same("swap_twice", {"": (again, unmoved)}, "the intact model", 0.0)

    def _n_blocks(self) -> GateRow:
        """Counted on the modules themselves, by a plan twice as long as the model."""
        n = self._model.n_layers
        plan = LayerPlan.of([*range(n), *([n - 1] * n)])
        called = [0] * n

        def count(block: int) -> Callable[[Tensor], None]:
            def add(_state: Tensor) -> None:
                called[block] += 1

            return add

        with hooks.removed_afterwards() as handles:
            for block, each in enumerate(self._model.architecture.blocks):
                # Inside the block: what finds the arguments of blocks enters them, and no further.
                inside = next(each.block.children(), each.block)
                handles.append(hooks.on_output(inside, count(block)))
            self._plan_states([plan])
        value = float(sum(abs(plan.blocks.count(b) - called[b]) for b in range(n)))
        detail = f"each block runs as often as a plan of {plan.n_blocks} blocks has it"
        return GateRow("n_blocks", value == 0.0, value, 0.0, detail)

    def _without(self, block: int) -> LayerPlan:
        return LayerPlan.of(other for other in range(self._model.n_layers) if other != block)

    def _changed(self, step: Step) -> LayerPlan:
        steps = (Step((block,)) for block in range(self._model.n_layers))
        return LayerPlan(tuple(step if one.blocks == step.blocks else one for one in steps))

    def _same(
        self,
        name: str,
        pairs: dict[str, tuple[Tensor, Tensor]],
        expected: str,
        tolerance: float | None = None,
    ) -> GateRow:
        limit = self._tolerance if tolerance is None else tolerance
        worst = max(self._gap(found, wanted) for found, wanted in pairs.values())
        exact = all(torch.equal(found, wanted) for found, wanted in pairs.values())
        detail = f"against {expected}; {'bit for bit' if exact else 'to rounding'}"
        blocks = ", ".join(key for key in pairs if key)
        detail += f"; blocks {blocks}" if blocks else ""
        return GateRow(name, worst <= limit, worst, limit, detail)

    @staticmethod
    def _gap(found: Tensor, wanted: Tensor) -> float:
        gap = float((found - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-30)
        return gap if gap == gap else float("inf")
