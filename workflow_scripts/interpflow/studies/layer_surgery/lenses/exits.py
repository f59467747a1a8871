"""From which depth on lenses read what the model answers in the end, item by item."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpflow.engine.lenses.depth_states import depth_states
from interpflow.engine.lenses.readings import Lens, read_lenses
from interpflow.engine.model import Model
from interpflow.stats.early_exit import first_match_depth, kl_depth, stable_depth
from interpflow.stats.intervals import mean_interval
from interpflow.stats.multiplicity import adjust
from interpflow.stats.record import MIN_CLUSTERS, Estimate
from interpflow.stats.unpaired import unpaired_difference
from interpflow.studies.layer_surgery.estimate_rows import Analyst, Row

FloatArray = NDArray[np.float64]

ANALYSIS = "exit_depth"
SPLIT = "confirm"


def exit_rows(
    model: Model,
    lenses: Mapping[str, Lens],
    items: Sequence[Mapping[str, Any]],
    prompts: Sequence[Sequence[int]],
    *,
    exit_kl: float,
    tokens_per_batch: int,
) -> list[Row]:
    """Rows of the table `surgery_exits`: of each item the depths at which its prompt's last token,
    which the first token of the answer follows, is read as it is in the end.

    items: rows of `surgery_intact`; prompts: token ids of each. The final token is the model's own
    most probable one, right or wrong.
    """
    if not items:
        return []
    last = _last_states(model, prompts, tokens_per_batch)
    found = read_lenses(model, lenses, last)
    rows: list[Row] = []
    for lens, read in found.items():
        top, kl = read.top.numpy().T, read.kl.numpy().T
        depths = zip(first_match_depth(top), stable_depth(top), kl_depth(kl, exit_kl), strict=True)
        for item, (first, stable, near) in zip(items, depths, strict=True):
            rows.append({
                **{key: item[key] for key in ("example_id", "family_id", "task", "split")},
                "lens": lens, "first_match": int(first), "stable_depth": int(stable),
                "kl_depth": int(near),
            })  # fmt: skip
    return rows


def _last_states(model: Model, prompts: Sequence[Sequence[int]], tokens_per_batch: int) -> Tensor:
    """States [depth, prompt, d_model] at the last token of each prompt."""
    kept = [torch.empty(0)] * len(prompts)
    for found in depth_states(model, prompts, batch_tokens=tokens_per_batch):
        kept[found.number] = found.states[:, -1].clone()
    return torch.stack(kept, dim=1)


def exit_estimates(
    analyst: Analyst,
    exits: Sequence[Row],
    kinds: Mapping[str, str],
    tasks: Collection[str],
    n_layers: int,
) -> list[Row]:
    """Stable depth as a share of the blocks, of each analysed task and of each kind of its items,
    and how it differs from the other tasks (kinds); items of the split confirm.

    kinds: example_id → kind within the task. Unit: the family; p by permutation of families, Holm
    over the tasks (kinds) of a lens.
    """
    rows: list[Row] = []
    for lens in sorted({row["lens"] for row in exits}):
        chosen = [row for row in exits if row["lens"] == lens and row["split"] == SPLIT
                  and row["task"] in tasks]  # fmt: skip
        of_task = {row["example_id"]: row["task"] for row in chosen}
        rows += _groups(analyst, f"{lens}: task", chosen, of_task, n_layers)
        for task in sorted(set(of_task.values())):
            inside = [row for row in chosen if row["task"] == task]
            named = {row["example_id"]: kinds.get(row["example_id"], "") for row in inside}
            if len(set(named.values())) > 1:
                rows += _groups(analyst, f"{lens}: kind of {task}", inside, named, n_layers)
    return rows


def _groups(
    analyst: Analyst,
    factor: str,
    chosen: Sequence[Row],
    group_of: Mapping[str, str],
    n_layers: int,
) -> list[Row]:
    depth = np.array([row["stable_depth"] / n_layers for row in chosen])
    families = np.array([row["family_id"] for row in chosen])
    groups = np.array([group_of[row["example_id"]] for row in chosen])
    rows: list[Row] = []
    contrasts: list[Estimate] = []
    names = sorted(set(groups.tolist()))
    level = analyst.settings.level
    for name in names:
        here = groups == name
        mean = mean_interval(
            depth[here], clusters=families[here], quantity="stable depth, share of blocks",
            level=level, null=float("nan"),
        )  # fmt: skip
        rows.append(analyst.row(ANALYSIS, factor, name, mean))
        # A family on both sides would not be independent of itself.
        shared = np.isin(families, families[here]) & ~here
        others = ~here & ~shared
        contrast = unpaired_difference(
            depth[here], depth[others], first_clusters=families[here],
            second_clusters=families[others], quantity="stable depth − that of the others",
            level=level, n_resamples=analyst.settings.n_permutations,
            seed=analyst.seed_of(ANALYSIS, factor, name),
        )  # fmt: skip
        contrasts.append(contrast)
    adjusted = adjust(contrasts, method="holm", family=f"{ANALYSIS} {factor}")
    return rows + [
        analyst.row(ANALYSIS, factor, name, contrast)
        for name, contrast in zip(names, adjusted, strict=True)
        if contrast.n_units >= MIN_CLUSTERS
    ]
