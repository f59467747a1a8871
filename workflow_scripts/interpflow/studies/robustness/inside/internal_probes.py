"""Linear probes by layer: was there a typo, and will the answer be wrong?

Read at the answer and at the numbers of the question (mean over their last tokens), which no
operator edits: the mean over unedited words would tell by which words it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.activations.store import ActivationStore
from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessAnalysis
from interpflow.stats.control_tasks import DEFAULT_CONTROL_SETS
from interpflow.stats.folds import DEFAULT_FOLDS, enough_groups
from interpflow.stats.label_probe import (
    LabelProbe,
    label_probe,
    permuted_labels,
    transfer_aurocs,
)
from interpflow.stats.record import SINGLE_CLASS, Estimate, undefined
from interpflow.studies.robustness.inside.stored_prompts import (
    NULL,
    IntArray,
    StoredPrompts,
    mean_states,
)

WAS_TYPO, WILL_FAIL = "was there a typo", "will the answer be wrong"
ANSWER, NUMBERS = "answer", "numbers"
COMPONENTS = ("embed", "resid_post")
# Families of operators that change letters, and those that leave every word as it is.
WITH_TYPO, WITHOUT_TYPO = ("typo", "control"), ("clean", "style")
# Fewer families with either label would leave folds without it.
MIN_FAMILIES_PER_LABEL = 2 * DEFAULT_FOLDS


@dataclass(frozen=True, eq=False)
class ProbeTask:
    """Prompts with a label, all [rows]: rows of the examples table, `labels` bool, `families`,
    `groups` that folds keep whole, and `known` [rows, …], what the label must be read beyond."""

    question: str
    examples: list[dict[str, Any]]
    labels: NDArray[np.bool_]
    families: NDArray[Any]
    groups: NDArray[Any]
    beyond: str
    known: NDArray[np.float64]
    grouped_by: str


@dataclass(frozen=True)
class ProbeRows:
    """Rows of the tables `probes` and `estimates`."""

    probes: list[dict[str, Any]]
    estimates: list[dict[str, Any]]


def run_probes(
    name: str,
    store: ActivationStore,
    prompts: StoredPrompts,
    settings: RobustnessAnalysis,
    seed: int,
) -> ProbeRows:
    """Both questions at every layer and place: AUROC against labels permuted within prompts,
    beyond prompt length (operator and dose), pairs of one prompt in order, transfer between
    operators. Families of hypotheses: the layers of one question and place. No rows for a store
    without residual states."""
    found = ProbeRows([], [])
    if not _probed_sites(store):
        return found
    for task in (typo_task(prompts), failure_task(prompts)):
        reason = _too_few(task)
        if reason:
            gone = undefined(f"AUROC: {task.question}", SINGLE_CLASS, n_units=len(task.labels))
            found.estimates.append(_estimate_row(name, task.question, reason, gone))
            continue
        for place in (ANSWER, NUMBERS):
            _probe_place(name, store, prompts, task, place, settings, seed, found)
    return found


def typo_task(prompts: StoredPrompts) -> ProbeTask:
    """Prompts with edited letters against clean ones and changes of style."""
    rows = [row for row in _examples(prompts) if row["family"] in (*WITH_TYPO, *WITHOUT_TYPO)]
    lengths = [[float(prompts.answers.get(r["example_id"], {}).get("n_prompt_tokens") or 0)]
               for r in rows]  # fmt: skip
    labels = [row["family"] in WITH_TYPO for row in rows]
    return _task(WAS_TYPO, rows, labels, "prompt length", np.array(lengths).reshape(-1, 1))


def failure_task(prompts: StoredPrompts) -> ProbeTask:
    """All prompts whose answer could be judged, by whether it is wrong."""
    judged = [(row, prompts.correct(row["example_id"])) for row in _examples(prompts)]
    rows = [row for row, right in judged if np.isfinite(right)]
    labels = [right == 0 for _, right in judged if np.isfinite(right)]
    operators = sorted({row["operator"] for row in rows})
    known = np.zeros((len(rows), len(operators) + 1))
    for i, row in enumerate(rows):
        known[i, operators.index(row["operator"])] = 1.0
        known[i, -1] = row["dose"] or 0.0
    return _task(WILL_FAIL, rows, labels, "operator and dose", known)


def _examples(prompts: StoredPrompts) -> list[dict[str, Any]]:
    """Clean prompts and accepted variants; the null operator would be the clean prompt twice."""
    variants = [
        row for row, accepted in zip(prompts.examples, prompts.accepted)
        if accepted and row["operator"] != NULL
    ]  # fmt: skip
    return [*prompts.clean_rows, *variants]


def _task(
    question: str, rows: list[dict[str, Any]], labels: list[bool], beyond: str, known: Any
) -> ProbeTask:
    families = np.array([str(row["family_id"]) for row in rows])
    templates = np.array([str(row["template_id"]) for row in rows])
    # Folds by template hold whole families only where each family has one template.
    nested = len(set(zip(families, templates))) == len(set(families))
    by_template = nested and enough_groups(templates)
    return ProbeTask(
        question=question,
        examples=rows,
        labels=np.array(labels, dtype=bool),
        families=families,
        groups=templates if by_template else families,
        beyond=beyond,
        known=known,
        grouped_by="template" if by_template else "prompt",
    )


def _too_few(task: ProbeTask) -> str:
    """Why the question cannot be asked of these prompts; "" where it can."""
    if not enough_groups(task.groups):
        return "too few prompts for folds"
    for value, what in ((True, "with"), (False, "without")):
        if len(set(task.families[task.labels == value])) < MIN_FAMILIES_PER_LABEL:
            return f"too few prompts {what} the label"
    return ""


def _probed_sites(store: ActivationStore) -> list[str]:
    return [site for site in store.sites if store.records[site].component in COMPONENTS]


def _probe_place(
    name: str,
    store: ActivationStore,
    prompts: StoredPrompts,
    task: ProbeTask,
    place: str,
    settings: RobustnessAnalysis,
    seed: int,
    found: ProbeRows,
) -> None:
    rows, owners = _rows_at(prompts, task, place)
    kept = np.unique(owners)
    if len(kept) < len(task.labels):
        task = _subset(task, kept)
        owners = np.searchsorted(kept, owners)
        if _too_few(task):
            return
    task_seed = derived_seed(seed, name, task.question, "probe")
    controls = permuted_labels(task.labels, task.families, DEFAULT_CONTROL_SETS, task_seed)
    sites = _probed_sites(store)
    probes: list[LabelProbe] = []
    for site in sites:
        states = mean_states(store, site, rows, owners, len(task.labels)).astype(np.float64)
        features = states if task.question == WAS_TYPO else np.column_stack([states, task.known])
        baselines: dict[str, Any] = {task.beyond: task.known}
        if task.question != WAS_TYPO:
            baselines["the state alone"] = states
        probe = label_probe(
            features, task.labels, task.families, task.groups, controls=controls,
            baselines=baselines, level=settings.level, seed=task_seed,
        )  # fmt: skip
        probes.append(probe)
        where = f"{site} at {place}"
        for estimate in _secondary(probe, task):
            found.estimates.append(_estimate_row(name, task.question, where, estimate))
        for estimate, operator in _transfer(states, task, probe, settings.level):
            found.estimates.append(
                _estimate_row(name, f"{task.question}: other operators", f"{operator}, {where}",
                              estimate)
            )  # fmt: skip
    found.probes.extend(_probe_rows(name, store, sites, probes, task, place))


def _rows_at(prompts: StoredPrompts, task: ProbeTask, place: str) -> tuple[IntArray, IntArray]:
    """Rows of the index at a place and the task's row that each belongs to, in order."""
    rows, owners = [], []
    for i, example in enumerate(task.examples):
        name = example["example_id"]
        if place == ANSWER:
            here = np.array([prompts.tokens.last(name)], dtype=np.intp)
        else:
            spans = list(zip(example["number_starts"] or [], example["number_ends"] or []))
            here = prompts.tokens.last_in(name, spans)
            here = here[here >= 0]
        rows.append(here)
        owners.append(np.full(len(here), i, dtype=np.intp))
    return np.concatenate(rows), np.concatenate(owners)


def _subset(task: ProbeTask, kept: IntArray) -> ProbeTask:
    return ProbeTask(
        question=task.question,
        examples=[task.examples[i] for i in kept],
        labels=task.labels[kept],
        families=task.families[kept],
        groups=task.groups[kept],
        beyond=task.beyond,
        known=task.known[kept],
        grouped_by=task.grouped_by,
    )


def _secondary(probe: LabelProbe, task: ProbeTask) -> Iterator[Estimate]:
    yield probe.auroc.selectivity.renamed("AUROC − that of labels permuted within prompts")
    yield from probe.auroc.baselines.values()
    yield probe.auroc.gains[task.beyond]
    yield probe.pairs.renamed("pairs of one prompt in order")
    for known, pairs in probe.baseline_pairs.items():
        yield pairs.renamed(f"pairs of one prompt in order: {known}")


def _transfer(
    states: NDArray[np.float64], task: ProbeTask, probe: LabelProbe, level: float
) -> Iterator[tuple[Estimate, str]]:
    """Probes fitted on all operators but one, tested on that one, other prompts in both."""
    operators = np.array([row["operator"] for row in task.examples])
    # Of a typo the opposite is among the prompts without one; of a failure, among its own.
    without = np.array([row["family"] in WITHOUT_TYPO for row in task.examples])
    beside = without if task.question == WAS_TYPO else None
    found = transfer_aurocs(
        states, task.labels, task.families, operators, probe.fold_of, beside=beside,
        penalty=probe.penalty, quantity="AUROC on an operator not trained on", level=level,
    )  # fmt: skip
    for operator, estimate in found.items():
        yield estimate, operator


def _probe_rows(
    name: str,
    store: ActivationStore,
    sites: list[str],
    probes: list[LabelProbe],
    task: ProbeTask,
    place: str,
) -> Iterator[dict[str, Any]]:
    """Rows of the table `probes`, p adjusted by the largest of the layers in each permutation."""
    controls = np.array([probe.auroc.control_scores for probe in probes])
    defined = np.isfinite(controls).any(axis=1)
    largest = np.nanmax(controls[defined], axis=0) if defined.any() else np.empty(0)
    for site, probe in zip(sites, probes):
        record = store.records[site]
        auroc = probe.auroc.task.renamed(
            f"AUROC: {task.question}, at {place}",
            family=f"exploratory: {task.question}, at {place}, folds by {task.grouped_by}",
        )
        scores = probe.auroc.control_scores[np.isfinite(probe.auroc.control_scores)]
        row: dict[str, Any] = auroc.to_row() | {
            "p_value": _number(probe.auroc.selectivity.p_value),
            "test": "rank_among_controls",
        }
        if auroc.defined and len(largest):
            above = int((largest >= auroc.estimate).sum())
            row["p_adjusted"] = (1 + above) / (1 + len(largest))
        yield {
            "model": name,
            "component": record.component,
            "layer": record.layer,
            "head": -1,
            **row,
            "control_mean": float(scores.mean()) if len(scores) else None,
            "control_max": float(scores.max()) if len(scores) else None,
            "position_r2": None,
        }


def _estimate_row(name: str, factor: str, level: str, estimate: Estimate) -> dict[str, Any]:
    record: Mapping[str, Any] = estimate.renamed(
        estimate.quantity, family=f"exploratory: probes, {factor}"
    ).to_row()
    return {
        "study": "robustness",
        "model": name,
        "analysis": "probes",
        "factor": factor,
        "level": level,
        **record,
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
