"""Made-up tables of a sweep in which every effect is planted, for tests of what reads them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.config.layer_surgery import SurgeryPlans
from interpflow.plans.families import SweepPlan, sweep_plans
from interpflow.stats.record import Estimate
from interpflow.tables.parquet import write_table
from interpflow.tasks.nlp.items import TaskItem

N_LAYERS = 8
TASKS = ("json", "world_facts", "addition")
SETTINGS = SurgeryPlans(repeats=[2], ablations=[], random_orders=80, controls=3)

Effect = Callable[[SweepPlan], float]


def swept() -> list[SweepPlan]:
    return sweep_plans(SETTINGS, N_LAYERS, 2, seed=1)


def items(n: int = 50, tasks: Sequence[str] = TASKS) -> list[TaskItem]:
    return [
        TaskItem(task=task, prompt=f"{task} question {i} is", answer=f" a{i}")
        for task in tasks
        for i in range(n)
    ]


def write_sweep(
    folder: Path,
    *,
    loss: Effect,
    retained: Callable[[SweepPlan, str], float],
    generated: Callable[[SweepPlan, TaskItem], str] = lambda plan, item: "something",
    depths: dict[str, float] | None = None,
    noise: float = 0.1,
    seed: int = 1,
) -> dict[str, Any]:
    """Write the tables that effects are estimated from, and return their paths by argument.

    loss: mean loss change of a plan; retained: share of a task's items still answered under a
    plan; depths: mean exit depth of a task. Items and documents outside the confirm split carry
    absurd values, so that reading one of them shows.
    """
    rng = np.random.default_rng(seed)
    plans, asked = swept(), items()
    texts = [
        {"document_id": f"d{i}", "split": "confirm" if i < 60 else "discover",
         "use": "measure" if i < 80 else "lens", "text": f"text {i}"}
        for i in range(100)
    ]  # fmt: skip
    losses, answers, generations = [], [], []
    for place, plan in enumerate(plans):
        intact = "intact" in plan.families
        text, key = str(plan.plan), f"r{place}"
        for document in texts[:80]:
            wild = document["split"] != "confirm"
            change = 0.0 if intact else loss(plan) + noise * rng.normal()
            losses.append({
                "plan": text, "run": key, "document_id": document["document_id"], "n_tokens": 20,
                "loss": 3 + change, "delta_loss": -1e6 if wild else change, "kl": abs(change),
                "top1_kept": float(np.clip(1 - abs(change), 0, 1)), "rank": 1.0,
            })  # fmt: skip
        if plan.role != "structured":
            continue
        for item in asked:
            wild = item.split != "confirm"
            still = intact or rng.random() < retained(plan, item.task)
            answers.append({
                "plan": text, "run": key, "example_id": item.example_id, "n_tokens": 1,
                "log_prob": -1.0, "delta_log_prob": 1e6 if wild else (0.0 if intact else
                (-3.0 * (1 - retained(plan, item.task)) + noise * rng.normal())),
                "kl": 0.0, "top1_kept": float(still), "rank": 1.0, "answered": still,
                "gained": [], "lost": [],
            })  # fmt: skip
            if not intact and "keep_first" not in plan.families:
                continue
            generations.append({
                "plan": text, "run": key, "example_id": item.example_id,
                "text": generated(plan, item), "n_tokens": 5, "correct": still,
                "format_score": float(still), "repetition": 0.0 if intact else 0.5,
            })  # fmt: skip
    depths = depths or dict.fromkeys(TASKS, 4.0)
    exits = [
        {"example_id": item.example_id, "family_id": item.family_id, "task": item.task,
         "split": item.split, "lens": lens, "first_match": 1,
         "stable_depth": int(np.clip(round(depths[item.task] + rng.normal()), 0, 8)),
         "kl_depth": 1}
        for item in asked
        for lens in ("logit", "tuned")
    ]  # fmt: skip
    intact_rows = [
        {"example_id": item.example_id, "family_id": item.family_id, "split": item.split,
         "task": item.task, "kind": "", "n_tokens": 1, "log_prob": -1.0, "rank": 1.0,
         "answered": True, "generated": item.answer, "correct": True, "unscored": ""}
        for item in asked
    ]  # fmt: skip
    tables = {
        "items": ("surgery_items", [item.to_row() for item in asked]),
        "texts": ("surgery_texts", texts),
        "plans": ("surgery_plans", [plan.to_row(N_LAYERS) for plan in plans]),
        "intact": ("surgery_intact", intact_rows),
        "answers": ("surgery_answers", answers),
        "losses": ("surgery_text_losses", losses),
        "generations": ("surgery_generations", generations),
        "exits": ("surgery_exits", exits),
    }
    influence = [
        {"study": "layer_surgery", "model": "m", "analysis": "block_influence",
         "factor": "block", "level": str(block),
         **Estimate(quantity="influence", estimate={0: 1.0, 7: 0.8}.get(block, 0.1)).to_row()}
        for block in range(N_LAYERS)
    ]  # fmt: skip
    # Alignment is least where influence is largest; a block without a value is left out.
    influence += [
        {"study": "layer_surgery", "model": "m", "analysis": "depth_cka", "factor": "next depth",
         "level": f"{block}-{block + 1}",
         **Estimate(quantity="CKA", estimate={0: 0.1, 7: 0.3}.get(block, 0.9)).to_row()}
        for block in range(N_LAYERS) if block != 3
    ]  # fmt: skip
    tables["lens_estimates"] = ("estimates", influence)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (table, rows) in tables.items():
        write_table(folder / f"{name}.parquet", table, rows)
    return {f"{name}_path": folder / f"{name}.parquet" for name in tables}
