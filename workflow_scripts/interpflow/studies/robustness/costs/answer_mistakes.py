"""Which mistakes perturbations bring about, by the kind of the first wrong step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from interpflow.studies.robustness.costs.estimate_rows import CLEAN_LEVEL, Analyst, Row
from interpflow.studies.robustness.costs.outcomes import Outcomes, level_means, reference_conditions
from interpflow.tasks.answer_errors import error_kind


def error_kinds(answers: Sequence[Row], chains: Mapping[str, str | None]) -> dict[str, str]:
    """Example id → kind of error, of the answers that have a gold answer and are not right.

    `chains`: example id → right continuation.
    """
    return {
        row["example_id"]: error_kind(
            row["generated"],
            lenient=row["lenient"],
            lenient_correct=bool(row["lenient_correct"]),
            right_chain=chains.get(row["example_id"]),
        )
        for row in answers
        if row["strict_correct"] is False
    }


def error_rows(
    analyst: Analyst, outcomes: Outcomes, kinds: Mapping[str, str], names: Sequence[str]
) -> tuple[list[Row], dict[str, dict[str, int]]]:
    """Shares of each kind of error by operator with their change from clean, and plain counts.

    `kinds`: example id → kind, of all answers that are not right; `names`: the kinds that are told
    apart, in order.
    """
    levels = reference_conditions(outcomes.conditions)
    rows: list[Row] = []
    counts: dict[str, dict[str, int]] = {}
    scored = {
        example
        for example, right in [
            *zip(outcomes.example_ids, outcomes.values["strict"], strict=True),
            *zip(outcomes.clean_ids, outcomes.clean["strict"], strict=True),
        ]
        if np.isfinite(right)
    }
    for name in names:
        if name not in kinds.values():
            continue
        values, clean = outcomes.aligned({e: float(kinds.get(e) == name) for e in scored})
        by_level = level_means(outcomes.means(values), levels)
        changes = analyst.contrasts(
            f"errors {name}", "operator", by_level - clean[:, None], quantity=f"change: {name}"
        )
        shares = [(CLEAN_LEVEL, clean), *zip(levels, by_level.T, strict=True)]
        for level, share in shares:
            record = analyst.mean(share, quantity=name, is_proportion=True)
            rows.append(analyst.row("errors", "operator", level, record))
        rows += [
            analyst.row("errors", "operator", level, change)
            for level, change in zip(levels, changes, strict=True)
        ]
        for level, places in levels.items():
            chosen = np.isin(outcomes.condition, places)
            counts.setdefault(level, {})[name] = int(np.nansum(values[chosen]))
        counts.setdefault(CLEAN_LEVEL, {})[name] = int(np.nansum(clean))
    return rows, counts
