"""What the offline scientist tests of a healthy model: which blocks text and tasks need."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from interpflow.agent.conduct import Outcome, run_agent
from interpflow.agent.laboratory import Measure, Measured
from interpflow.agent.policies.findings import directed
from interpflow.agent.policies.looking import Seen, chance
from interpflow.agent.policies.needs import MOST_TESTS, RESERVE_SHARE
from interpflow.agent.policies.scientist import scientist
from interpflow.agent.work.session import Session
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.requests import NamedPlan, named_plan
from interpflow.stats.quantiles import t_quantile
from tests.unit.agent.fake_laboratory import FakeLaboratory, settings


@dataclass
class TaskLaboratory(FakeLaboratory):
    """Tasks that lose nats where a block is left out: needs[task][block], with a tenth of it as
    the spread over families. `explored`: runs of tasks, to count them."""

    n_layers: int = 8
    needs: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    n_families: int = 24
    explored: list[str] = field(default_factory=list)
    spread: float = 0.1

    def describe(self) -> dict[str, Any]:
        told = super().describe()
        task = {**told["tasks"]["sums"], "explore": 12, "confirm": self.n_families}
        return {**told, "n_layers": self.n_layers, "tasks": dict.fromkeys(self.needs, task)}

    def plan(self, request: Mapping[str, Any]) -> NamedPlan:
        return named_plan(request, self.n_layers, 2)

    def explore_units(self, measure: Measure, task: str | None):
        units = super().explore_units(measure, task)
        return units if measure == "text" else [f"{task} {unit}" for unit in units[:12]]

    def confirm_units(self, measure: Measure, task: str | None):
        units = super().confirm_units(measure, task)
        return units if measure == "text" else [f"{task} {u}" for u in units[: self.n_families]]

    def measure(self, plans, measure, task, units) -> Measured:
        if measure == "text":
            return super().measure(plans, measure, task, units)
        self.explored.append(task)
        rows = {
            str(named.plan): [self._answer(named.plan, task, unit) for unit in units]
            for named in plans
        }
        return Measured(rows, dict.fromkeys(rows, ("run",)), len(units), False)

    def changes(self, plan: LayerPlan, units):
        if self.n_layers == 8:
            return super().changes(plan, units)
        return [0.1 * (self.n_layers - plan.n_blocks) * (1 + hash_of(unit)) for unit in units]

    def _answer(self, plan: LayerPlan, task: str, unit: str) -> dict[str, Any]:
        kept = {block for step in plan.steps for block in step.blocks}
        lost = sum(cost for block, cost in self.needs[task].items() if block not in kept)
        noise = 0.0 if len(kept) == self.n_layers else 0.01 * (hash_of(unit + str(plan)) - 0.5)
        change = -lost * (1 + self.spread * (hash_of(unit) - 0.5)) + noise
        return {"unit": unit, "delta_log_prob": change, "kl": abs(change), "top1_kept": 1.0,
                "answered": math.exp(change)}  # fmt: skip


def hash_of(text: str) -> float:
    """A number in [0, 1) that belongs to a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


ALL = {0: 12.0}
NEEDS = {"sums": {**ALL, 4: 6.0}, "copying": {**ALL, 6: 2.0}, "facts": ALL, "rhymes": ALL,
         "history": ALL}  # fmt: skip


def worked(laboratory, seed: int = 1, **more: Any) -> Outcome:
    return run_agent(settings(**more), laboratory, scientist(), None, seed)


def said(outcome: Outcome) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["task"], row["label"]): row for row in outcome.tests if not row["is_placebo"]}


def test_what_tasks_need_is_found_and_confirmed():
    found = said(worked(TaskLaboratory(needs=NEEDS)))
    needed = found["sums", "skip 4"]
    assert json.loads(needed["prediction"]) == {
        "sign": "decrease", "smallest_effect": pytest.approx(3, rel=0.05)
    }  # fmt: skip
    assert needed["verdict"] == "CONFIRMED"
    assert needed["estimate"] == pytest.approx(-6, rel=0.05)
    assert found["copying", "skip 6"]["verdict"] == "CONFIRMED"
    # Every task needs block 0: that is said of none of them.
    assert not [key for key in found if key[0] and key[1] == "skip 0"]


def test_a_task_is_spared_where_another_needs_the_block():
    found = said(worked(TaskLaboratory(needs=NEEDS)))
    spared = {key: row for key, row in found.items() if "within" in row["prediction"]}
    assert {label for _, label in spared} == {"skip 4", "skip 6"}
    assert {task for task, _ in spared} <= {"facts", "rhymes", "history"}
    assert all(row["verdict"] == "CONFIRMED" for row in spared.values())
    for row in spared.values():
        low, high = json.loads(row["prediction"])["within"]
        assert -low == high == pytest.approx(math.log(1.25), abs=0.01)


def test_without_a_need_of_its_own_no_task_is_tested():
    found = said(worked(TaskLaboratory(needs=dict.fromkeys(NEEDS, ALL))))
    assert found
    assert not [task for task, _ in found if task]


def test_text_is_tested_with_comparisons_that_are_true():
    laboratory = TaskLaboratory(needs={})
    found = said(worked(laboratory))
    assert {row["verdict"] for row in found.values()} == {"CONFIRMED"}
    (most,) = [label for _, label in found if label.startswith("skip 0 vs skip")]
    assert found["", most]["estimate"] > 0
    (swapped,) = [label for _, label in found if label.startswith("swap")]
    assert found["", swapped]["estimate"] < 0
    assert any(label in {f"skip {b}" for b in range(1, 8)} for _, label in found)


def test_no_anomaly_is_told_as_exploratory_and_claims_hold_their_numbers():
    outcome = worked(TaskLaboratory(needs=NEEDS))
    assert not outcome.confirmed
    first, *others = outcome.claims
    assert first.strength == "exploratory"
    assert first.text.startswith("No anomaly was worth a test")
    confirmed = [row for row in said(outcome).values() if row["verdict"] == "CONFIRMED"]
    assert len(others) == len(confirmed)
    assert all(claim.strength == "confirmed" and "{{" not in claim.text for claim in others)
    (claim,) = [claim for claim in others if claim.text.startswith("On sums, skip 4 lowers")]
    assert "nats over" in claim.text
    assert "(predicted: decreases by ≥" in claim.text


def test_anomalies_come_first():
    laboratory = TaskLaboratory("swapped", (3, 4), needs=NEEDS)
    outcome = worked(laboratory)
    assert outcome.tests[0]["claim"] == "swapped 3 and 4"
    assert [str(claim) for _, claim in outcome.confirmed] == ["swapped 3 and 4"]
    assert len(outcome.tests) > 3
    assert all(claim.strength == "confirmed" for claim in outcome.claims)
    assert outcome.stopped == "stop"


@pytest.mark.parametrize("slots", [1, 3, 6, 16, 40])
def test_slots_are_left(slots: int):
    outcome = worked(TaskLaboratory(needs=NEEDS), budget={"confirmatory": slots})
    real = [row for row in outcome.tests if not row["rerun_of"]]
    assert len(real) <= min(MOST_TESTS, slots * (1 - RESERVE_SHARE))
    assert bool(real) == (slots > 1)


def test_too_few_units_or_turns_end_in_a_report():
    few = worked(TaskLaboratory(needs=NEEDS, n_families=6))
    assert not [row for row in few.tests if row["task"]]
    assert few.claims
    short = worked(TaskLaboratory(needs=NEEDS), budget={"turns": 12})
    assert short.stopped.startswith("budget")


def test_noise_is_not_tested():
    """Tasks that vary widely over families: no test has a fair chance."""
    needs = {"sums": {4: 0.5}, "facts": {5: 0.5}}
    found = said(worked(TaskLaboratory(needs=needs, spread=20.0)))
    assert not [task for task, _ in found if task]


def test_depth_is_parted_in_a_deep_model():
    needs = {"sums": {**ALL, 21: 6.0}, "copying": {**ALL, 33: 2.0}, "facts": ALL}
    laboratory = TaskLaboratory(n_layers=40, needs=needs)
    found = said(worked(laboratory))
    # 16 ranges of two or three blocks, then the single blocks of three of them.
    assert laboratory.explored.count("facts") == 2
    assert found["sums", "skip 21"]["verdict"] == "CONFIRMED"
    assert found["copying", "skip 33"]["verdict"] == "CONFIRMED"


def test_a_forecast_is_the_share_of_tests_that_confirm():
    """Normal units, mean explored on 12, tested on 20: over pairs of samples with the same seen
    mean and spread (flat prior), the share of confirmations is what was forecast."""
    draw = np.random.default_rng(3)
    seen, n, alpha, n_draws = Seen("X1", -1.0, 1.2, 12), 20, 0.05, 20_000
    prediction = {"sign": "decrease", "smallest_effect": 0.3}
    sd = seen.sd * np.sqrt((seen.n - 1) / draw.chisquare(seen.n - 1, n_draws))
    mean = seen.mean + sd / np.sqrt(seen.n) * draw.standard_normal(n_draws)
    tested = mean[:, None] + sd[:, None] * draw.standard_normal((n_draws, n))
    reach = t_quantile(1 - 0.1 * alpha, n - 1) * tested.std(axis=1, ddof=1) / math.sqrt(n)
    share = float((tested.mean(axis=1) + reach < -0.3).mean())
    assert chance(seen, prediction, n, alpha) == pytest.approx(share, abs=0.04)
    inside = chance(Seen("X1", 0.01, 0.1, 12), {"within": [-0.2, 0.2]}, n, alpha)
    assert inside > 0.9
    assert chance(Seen("X1", 0.19, 0.1, 12), {"within": [-0.2, 0.2]}, n, alpha) < 0.1
    assert chance(Seen("X1", 0.3, 0.0, 12), {"within": [-0.2, 0.2]}, n, alpha) == 0


def test_the_hunt_alone_tests_no_needs():
    laboratory = TaskLaboratory(needs=NEEDS)
    outcome = run_agent(settings(), laboratory, scientist(anomalies_only=True), None, 1)
    assert not outcome.tests
    assert not outcome.claims
    assert not laboratory.explored


@pytest.mark.parametrize("sign", ["increase", "decrease"])
def test_a_finding_says_what_was_seen(sign):
    view = Session(settings(), TaskLaboratory(needs=NEEDS), None, 1).view()
    seen = Seen("X1", 0.4, 0.1, 32)
    finding = directed(view, "by {least:g}", {"kind": "reverse"}, seen, sign)
    if sign == "decrease":
        assert finding is None
    else:
        assert finding is not None
        assert finding.prediction == {"sign": sign, "smallest_effect": 0.2}
        assert finding.text == "by 0.2"
