"""Is the running count linearly decodable at the list words, beyond what position gives away?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.activations.store import ActivationStore, open_store
from interpflow.config.counting import CountingMediation
from interpflow.config.identity import derived_seed
from interpflow.stats.control_tasks import draw_half_sets, running_counts
from interpflow.stats.folds import enough_groups
from interpflow.stats.partial_probe import PartialProbe, partial_probe
from interpflow.stats.record import Estimate
from interpflow.studies.counting.verdict import Decodability
from interpflow.tables.parquet import read_rows

EXPLORE, CONFIRM = ("discover", "develop"), ("confirm",)
SIGNIFICANT = 0.05  # of the rank among control word sets


@dataclass(frozen=True)
class ProbeTask:
    """The rows of the probes: `target` [row] running counts, `controls` [row, sets]."""

    target: np.ndarray
    controls: np.ndarray
    positions: np.ndarray
    groups: np.ndarray
    splits: np.ndarray

    def of(self, splits: Sequence[str]) -> np.ndarray:
        return np.flatnonzero(np.isin(self.splits, splits))


def run_probes(
    name: str,
    activations_path: Path | str,
    examples_path: Path | str,
    settings: CountingMediation,
    seed: int,
) -> tuple[list[dict[str, Any]], Decodability | None]:
    """Rows of the table `probes` for every layer, and the verdict on the chosen one.

    The layer is chosen on the exploration splits and measured on the confirmation split, against
    `probe_controls` random word sets. None with fewer base lists than twice the folds in a part.
    """
    activations = open_store(activations_path)
    if not activations.n_tokens:
        return [], None
    examples = {row["example_id"]: row for row in read_rows(examples_path, "counting_examples")}
    task = probe_task(activations, examples, settings.probe_controls, seed)
    everything = np.arange(len(task.target))
    rows, choice, confirmed = [], [], []
    for site in activations.sites:
        features = activations.matrix(site)
        scores = [
            _probe(name, site, features, task, kept, seed)
            for kept in (everything, task.of(EXPLORE), task.of(CONFIRM))
        ]
        if any(score is None for score in scores):
            return [], None
        overall, explored, measured = scores
        assert overall is not None
        rows.append(_row(name, site, overall))
        choice.append(explored)
        confirmed.append(measured)
    best = int(np.argmax([found.partial_r2.estimate for found in choice]))
    found = confirmed[best]
    p_value = found.selectivity.p_value
    controls = found.control_partial_r2
    score = Estimate(
        quantity=found.partial_r2.quantity,
        estimate=found.partial_r2.estimate,
        ci_low=found.partial_r2.ci_low,
        ci_high=found.partial_r2.ci_high,
        p_value=p_value,
        test="rank_among_controls",
        n_units=found.n_groups,
        seed=seed,
    )
    return rows, Decodability(
        layer=_layer(activations.sites[best]),
        score=score,
        control_mean=float(np.nanmean(controls)),
        control_max=float(np.nanmax(controls)),
        decodable=bool(p_value <= SIGNIFICANT and score.ci_low > settings.smallest_effect),
    )


def probe_task(
    activations: ActivationStore,
    examples: Mapping[str, Mapping[str, Any]],
    n_controls: int,
    seed: int,
) -> ProbeTask:
    """Targets of every activation row: the running count of the asked category, and those of
    random word sets that occur as often on the same lists."""
    ids = activations.index["example_id"].to_pylist()
    places = activations.index["word"].to_pylist()
    rows = [examples[example_id] for example_id in ids]
    words = [row["words"][k] for row, k in zip(rows, places)]
    categories = [row["category"] for row in rows]
    members: dict[str, set[str]] = {category: set() for category in categories}
    others: dict[str, set[str]] = {category: set() for category in categories}
    for row, k in zip(rows, places):
        (members if row["is_match"][k] else others)[row["category"]].add(row["words"][k])
    sets = draw_half_sets(
        members, others, n_sets=n_controls, seed=derived_seed(seed, "control word sets")
    )
    return ProbeTask(
        target=np.array([row["running_count"][k] for row, k in zip(rows, places)], dtype=float),
        controls=running_counts(words, categories, ids, places, sets),
        positions=np.array(places),
        groups=np.array([row["family_id"] for row in rows]),
        splits=np.array([row["split"] for row in rows]),
    )


def _probe(
    name: str, site: str, features: np.ndarray, task: ProbeTask, kept: np.ndarray, seed: int
) -> PartialProbe | None:
    if not enough_groups(task.groups[kept]):
        return None
    return partial_probe(
        features[kept],
        task.target[kept],
        task.positions[kept],
        task.groups[kept],
        controls=task.controls[kept],
        seed=derived_seed(seed, name, site, "probe"),
    )


def _row(name: str, site: str, found: PartialProbe) -> dict[str, Any]:
    record = found.partial_r2.to_row() | {
        "p_value": found.selectivity.p_value,
        "n_resamples": found.selectivity.n_resamples,
    }
    return {
        "model": name,
        "component": site.split(".", maxsplit=1)[0],
        "layer": _layer(site),
        "head": -1,
        **record,
        "control_mean": float(np.nanmean(found.control_partial_r2)),
        "control_max": float(np.nanmax(found.control_partial_r2)),
        "position_r2": found.r2_position,
    }


def _layer(site: str) -> int:
    """Layer of a site's name; −1 for the embedding."""
    return -1 if site == "embed" else int(site.split(".L")[1])
