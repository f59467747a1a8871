"""Proof that a planted anomaly does what it is called, by a route that shares nothing with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interpflow.engine.gate_report import GateReport, GateRow
from interpflow.engine.layers.altered import as_interventions
from interpflow.engine.layers.execute import PlanRunner
from interpflow.engine.layers.plan_gates import TOLERANCE
from interpflow.engine.model import Model, full_precision
from interpflow.plans.anomalies import Anomaly


def check_planted(
    model: Model, copied: Model, anomaly: Anomaly, rows: Sequence[Sequence[int]]
) -> GateReport:
    """The copy's own forward on rows of token ids, cut to the shortest, against the model: under
    hooks that silence or scale the block's parts, or under the plan that has its blocks in the
    copy's order.

    Two gates: the logits at the last position are the same to 1e-5 of the largest (float32), and
    they are not those of the model as it is. Raises RuntimeError naming the gates that failed.
    """
    length = min(map(len, rows))
    cut = [list(row[:length]) for row in rows]
    found, intact = _own_logits(copied, cut), _own_logits(model, cut)
    plan = anomaly.plan(model.n_layers)
    hooked = as_interventions(anomaly)
    if hooked:
        expected, route = full_precision(model.patch(cut, hooked)), "hooks on the model's parts"
    else:
        assert plan is not None
        runner = PlanRunner(model, [plan], tokens_per_pass=length * len(cut), fast=False)
        states = {}
        for each in runner.states(cut, [[length - 1]] * len(cut)):
            states.update(dict(each.by_row()))
        last = torch.cat([states[row] for row in range(len(cut))])
        expected, route = runner.unembed(last), f"the plan {plan} on the model"
    size = max(float(expected.abs().max()), 1e-30)
    off = float((found - expected).abs().max()) / size
    moved = float((found - intact).abs().max()) / size
    report = GateReport(
        (
            GateRow(f"planted {anomaly}", off <= TOLERANCE, off, TOLERANCE, f"against {route}"),
            GateRow(
                f"moved by {anomaly}", moved > TOLERANCE, moved, TOLERANCE,
                "the logits are not those of the model as it is",
            ),
        ),
        {},
    )  # fmt: skip
    report.require()
    return report


def _own_logits(model: Model, rows: list[list[int]]) -> Tensor:
    """Logits [row, vocab] at the last position, of transformers' own forward."""
    ids = torch.tensor(rows, device=model.device)
    with torch.no_grad():
        return full_precision(model.module(input_ids=ids, use_cache=False).logits[:, -1])
