"""A model's answers as arrays: prompts in rows, what was done to them in columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interpflow.errors import UserError
from interpflow.stats.paired_contrasts import cell_means, mean_over
from interpflow.studies.robustness.data.cells import CLEAN
from interpflow.tables.parquet import read_table

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

# Columns of the answers that are analysed, by a short name.
MEASURES = {"strict": "strict_correct", "lenient": "lenient_correct", "log_prob": "gold_log_prob"}
# Control comes first so that tables begin with what must do nothing.
FAMILY_ORDER = ("control", "typo", "obfuscation", "style", "rewrite", "given")


@dataclass(frozen=True)
class Condition:
    """What was done to a prompt, whatever the draw. Null where it does not apply."""

    family: str
    operator: str
    placement: str
    n_edits: int | None
    rate: float | None
    strength: int | None

    @property
    def dose(self) -> int | float | None:
        """Number of edits, rate or strength; None for what has no doses."""
        return next((d for d in (self.n_edits, self.rate, self.strength) if d is not None), None)


@dataclass(frozen=True)
class Outcomes:
    """Variants in rows [rows], clean prompts apart [bases]; missing values are NaN.

    `base`, `condition`, `draw` [rows] are codes; `delivered` the share of characters edited.
    `clusters` [bases] is None where every prompt is a family of its own.
    """

    base_ids: tuple[str, ...]
    clusters: NDArray[Any] | None
    conditions: tuple[Condition, ...]
    base: IntArray
    condition: IntArray
    draw: IntArray
    accepted: NDArray[np.bool_]
    delivered: FloatArray
    example_ids: tuple[str, ...]
    clean_ids: tuple[str, ...]
    values: Mapping[str, FloatArray]
    clean: Mapping[str, FloatArray]

    @property
    def n_bases(self) -> int:
        return len(self.base_ids)

    def kept(self, values: FloatArray, *, accepted_only: bool) -> FloatArray:
        """`values` [rows], NaN for variants that were not accepted where only those count."""
        return np.where(self.accepted, values, np.nan) if accepted_only else values

    def means(self, values: FloatArray, *, accepted_only: bool = False) -> FloatArray:
        """Mean over draws of `values` [rows], as [bases, conditions]."""
        kept = self.kept(values, accepted_only=accepted_only)
        return cell_means(kept, self.base, self.condition, self.n_bases, len(self.conditions))

    def single(self, values: FloatArray, chosen: Sequence[int]) -> FloatArray:
        """Every draw of the `chosen` conditions as a column of its own, [bases, columns]."""
        width = int(self.draw.max(initial=0)) + 1
        wide = cell_means(
            values,
            self.base,
            self.condition * width + self.draw,
            self.n_bases,
            len(self.conditions) * width,
        )
        columns = [c * width + d for c in chosen for d in range(width)]
        wide = wide[:, columns]
        return wide[:, np.isfinite(wide).any(axis=0)]

    def aligned(self, by_example: Mapping[str, float]) -> tuple[FloatArray, FloatArray]:
        """Values by example id as ([rows], [bases] of the clean prompts); NaN where there is none.

        Other tables join here, by the id of the example.
        """
        rows = np.array([by_example.get(i, np.nan) for i in self.example_ids], dtype=float)
        clean = np.array([by_example.get(i, np.nan) for i in self.clean_ids], dtype=float)
        return rows, clean


def read_outcomes(answers_path: Path | str) -> Outcomes:
    """Read the answers of one model. Raises UserError where a variant has no clean prompt."""
    return outcomes_of(read_table(answers_path, "robustness_answers"), where=str(answers_path))


def outcomes_of(table: pa.Table, *, where: str = "") -> Outcomes:
    """The table `robustness_answers` of one model as arrays."""
    texts = {
        name: table[name].to_pylist() for name in ("example_id", "base_id", "family_id", "operator")
    }
    is_clean = np.array([operator == CLEAN for operator in texts["operator"]], dtype=bool)
    clean_rows, rows = np.flatnonzero(is_clean), np.flatnonzero(~is_clean)
    base_ids = tuple(texts["base_id"][i] for i in clean_rows)
    code = {base: i for i, base in enumerate(base_ids)}
    lost = sorted({texts["base_id"][i] for i in rows} - set(code))
    if lost:
        raise UserError(
            f"{len(lost)} prompts have answers to variants but none to the prompt itself "
            f"(first: {lost[0]})",
            where=where,
            remedy="delete the table and run the workflow again",
        )
    conditions, codes = _conditions(table, rows)
    families = np.array([texts["family_id"][i] for i in clean_rows])
    numbers = {name: _floats(table, column) for name, column in MEASURES.items()}
    return Outcomes(
        base_ids=base_ids,
        clusters=families if len(set(families)) < len(families) else None,
        conditions=conditions,
        base=np.array([code[texts["base_id"][i]] for i in rows], dtype=np.intp),
        condition=codes,
        draw=np.nan_to_num(_floats(table, "variant")[rows]).astype(np.intp),
        accepted=_floats(table, "accepted")[rows] == 1,
        delivered=_floats(table, "dose")[rows],
        example_ids=tuple(texts["example_id"][i] for i in rows),
        clean_ids=tuple(texts["example_id"][i] for i in clean_rows),
        values={name: column[rows] for name, column in numbers.items()},
        clean={name: column[clean_rows] for name, column in numbers.items()},
    )


def _floats(table: pa.Table, column: str) -> FloatArray:
    found = table[column].cast(pa.float64()).to_numpy()
    return np.asarray(found, dtype=np.float64)


def _conditions(table: pa.Table, rows: IntArray) -> tuple[tuple[Condition, ...], IntArray]:
    keys = ("family", "operator", "placement", "n_edits", "rate", "strength")
    columns = [table[key].to_pylist() for key in keys]
    each = [Condition(*(column[i] for column in columns)) for i in rows]
    operators = list(dict.fromkeys(condition.operator for condition in each))

    def order(condition: Condition) -> tuple[int, int, str, float, float]:
        family = condition.family
        place = FAMILY_ORDER.index(family) if family in FAMILY_ORDER else len(FAMILY_ORDER)
        dose = condition.n_edits or condition.strength or 0
        return place, operators.index(condition.operator), condition.placement, dose, (
            condition.rate or 0.0
        )  # fmt: skip

    distinct = sorted(set(each), key=order)
    code = {condition: i for i, condition in enumerate(distinct)}
    return tuple(distinct), np.array([code[condition] for condition in each], dtype=np.intp)


def reference_conditions(conditions: Sequence[Condition]) -> dict[str, list[int]]:
    """Per operator, the conditions that stand for it: one dose, and the placement "any" if it has
    one, else all its placements.

    Of several doses, the one that most operators share, else the middle one (the lower of two).
    """
    by_operator: dict[str, list[int]] = {}
    for i, condition in enumerate(conditions):
        by_operator.setdefault(condition.operator, []).append(i)
    shared = Counter(
        (kind, dose)
        for places in by_operator.values()
        for kind, dose in {_kind_and_dose(conditions[i]) for i in places}
    )
    found = {}
    for operator, places in by_operator.items():
        doses = sorted({_kind_and_dose(conditions[i]) for i in places})
        most = max(shared[dose] for dose in doses)
        common = [dose for dose in doses if shared[dose] == most]
        chosen = common[(len(common) - 1) // 2]
        at_dose = [i for i in places if _kind_and_dose(conditions[i]) == chosen]
        anywhere = [i for i in at_dose if conditions[i].placement == "any"]
        found[operator] = anywhere or at_dose
    return found


def _kind_and_dose(condition: Condition) -> tuple[str, float]:
    for kind in ("n_edits", "rate", "strength"):
        dose = getattr(condition, kind)
        if dose is not None:
            return kind, float(dose)
    return "", 0.0


def factors_of(conditions: Sequence[Condition]) -> dict[str, dict[str, list[int]]]:
    """What effects are reported by: factor → level → conditions that are averaged.

    operator: each at its reference dose. family: its operators, averaged. placement: of the
    operators that have several ("keyboard:main"), and over all of them ("main"). n_edits, rate,
    strength: of the operators that have several ("keyboard:3", "keyboard main:3").
    """
    reference = reference_conditions(conditions)
    factors: dict[str, dict[str, list[int]]] = {"operator": reference, "family": {}}
    for places in reference.values():
        family = conditions[places[0]].family
        if family != "control":
            factors["family"].setdefault(family, []).extend(places)
    for kind in ("n_edits", "rate", "strength"):
        factors[kind] = {
            f"{operator}:{getattr(conditions[i], kind):g}": [i]
            for operator, ladder in ladders(
                conditions, kind, at_least=1 if kind == "rate" else 2
            ).items()
            for i in ladder
        }
    factors["placement"] = _placements(conditions, reference)
    return {name: levels for name, levels in factors.items() if levels}


def ladders(
    conditions: Sequence[Condition], kind: str, *, at_least: int = 2
) -> dict[str, list[int]]:
    """Operators given at several doses of a `kind` (n_edits, rate, strength): their conditions in
    order of dose. Named by the operator, and by the placement where it has others than "any"."""
    found: dict[str, list[int]] = {}
    for i, condition in enumerate(conditions):
        if getattr(condition, kind) is not None:
            found.setdefault(name_of(conditions, condition), []).append(i)
    return {
        name: sorted(steps, key=lambda i: getattr(conditions[i], kind))
        for name, steps in found.items()
        if len(steps) >= at_least
    }


def name_of(conditions: Sequence[Condition], condition: Condition) -> str:
    """An operator, with the placement where that tells its conditions apart: "keyboard main"."""
    placements = {other.placement for other in conditions if other.operator == condition.operator}
    if condition.placement == "any" or len(placements) == 1:
        return condition.operator
    return f"{condition.operator} {condition.placement}"


def _placements(
    conditions: Sequence[Condition], reference: Mapping[str, list[int]]
) -> dict[str, list[int]]:
    levels: dict[str, list[int]] = {}
    for operator, places in reference.items():
        dose = _kind_and_dose(conditions[places[0]])
        at_dose = [
            i
            for i, condition in enumerate(conditions)
            if condition.operator == operator and _kind_and_dose(condition) == dose
        ]
        if conditions[places[0]].family == "control" or len(at_dose) < 2:
            continue
        for i in at_dose:
            levels.setdefault(conditions[i].placement, []).append(i)
            levels[f"{operator}:{conditions[i].placement}"] = [i]
    return levels


def level_means(means: FloatArray, levels: Mapping[str, list[int]]) -> FloatArray:
    """Mean of `means` [bases, conditions] over the conditions of each level, [bases, levels]."""
    return np.column_stack([mean_over(means[:, places]) for places in levels.values()])
