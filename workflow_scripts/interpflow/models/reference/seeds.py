"""The table of training seeds: do the claims of a card hold for more than one training run?"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interpflow.models.reference.release import RECORD_NAME

COLUMNS: tuple[str, ...] = (
    "name",
    "seed",
    "steps",
    "cpu_minutes",
    "accuracy",
    "slope",
    "slope_ci_low",
    "slope_ci_high",
    "shifted_accuracy",
    "probe_r2",
    "probe_partial_r2",
    "float32_weights",
)


def seed_row(record: dict[str, Any]) -> dict[str, Any]:
    """One training run: exact-match accuracy, and slope and probe at the middle layer."""
    metrics = record["metrics"]
    middle = str(metrics["middle_layer"])
    slope, probe = metrics["slope"][middle], metrics["probe"][middle]
    return {
        "name": record["name"],
        "seed": record["seed"],
        "steps": record["recipe"]["steps"],
        "cpu_minutes": round(record["cpu_seconds"] / 60, 2),
        "accuracy": round(metrics["accuracy"]["overall"], 4),
        "slope": round(slope["estimate"], 4),
        "slope_ci_low": round(slope["ci_low"], 4),
        "slope_ci_high": round(slope["ci_high"], 4),
        "shifted_accuracy": round(slope["shifted_accuracy"], 4),
        "probe_r2": round(probe["r2"], 4),
        "probe_partial_r2": round(probe["partial_r2"], 4),
        "float32_weights": record["digests"]["float32_weights"],
    }


def write_seeds_table(directories: Sequence[Path], path: Path) -> None:
    """One row per trained counting model, ordered by name and seed."""
    records = [
        json.loads((directory / RECORD_NAME).read_text(encoding="utf-8"))
        for directory in directories
    ]
    rows = sorted((seed_row(r) for r in records), key=lambda row: (row["name"], row["seed"]))
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
