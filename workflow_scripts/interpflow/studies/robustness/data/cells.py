"""The cells of the design: what is done to every prompt, fixed before any text is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from interpflow.config.robustness import Perturbations, RobustnessSettings
from interpflow.errors import UserError
from interpflow.tasks.perturbations.operators import (
    CONTROL,
    NULL,
    Operator,
    builtin_operators,
    operator_named,
)
from interpflow.tasks.perturbations.text import Placement

CLEAN = "clean"
GIVEN = "given:"  # before the name of a variant that was read with the prompt
REWRITE = "rewrite:"  # before the style that the role generator was asked for


@dataclass(frozen=True)
class Cell:
    """One thing done to every prompt. Null where an operator does not take it: `n_edits` and
    `rate` (one of the two) of operators that count edits, `strength` of styles."""

    family: str
    operator: str
    placement: Placement = "any"
    n_edits: int | None = None
    rate: float | None = None
    strength: int | None = None
    variant: int = 0

    @property
    def ladder(self) -> tuple[str, str, str, int, bool]:
        """Equal for cells that differ in their dose alone."""
        return self.family, self.operator, self.placement, self.variant, self.rate is not None

    @property
    def dose(self) -> float:
        return float(self.rate or self.n_edits or self.strength or 0)


def planned_cells(settings: RobustnessSettings) -> list[Cell]:
    """Every cell, the clean prompt first, doses of one operator from the smallest on.

    Given variants have no cells, as prompts differ in them; rewrites have one per style and draw.
    Raises UserError for an unknown operator, and for doses of one that does not count edits.
    """
    asked = settings.perturbations
    names = [name for name in asked.operators or builtin_operators() if name not in (NULL, CONTROL)]
    cells = [Cell("clean", CLEAN)]
    for variant in range(asked.variants):
        cells.append(Cell("control", NULL, variant=variant))
        cells += [
            Cell("control", CONTROL, "other", n_edits=n, variant=variant)
            for n in _control_doses(asked, names)
        ]
    for name in dict.fromkeys([*names, *asked.dose.operators]):
        cells += _operator_cells(operator_named(name), asked, is_named=name in names)
    if asked.rewrites is not None:
        cells += [
            Cell("rewrite", f"{REWRITE}{style}", variant=variant)
            for style in asked.rewrites.styles
            for variant in range(asked.rewrites.per_item)
        ]
    return cells


def _operator_cells(operator: Operator, asked: Perturbations, *, is_named: bool) -> Iterator[Cell]:
    in_dose = operator.name in asked.dose.operators
    if in_dose and not operator.counts_edits:
        raise UserError(
            f"{operator.name!r} does not count edits, so it has no doses",
            where="robustness.perturbations.dose.operators",
            remedy="name typo or obfuscation operators; `strengths` grades styles",
        )
    placements: list[Placement] = ["any"]
    if operator.takes_placement:
        placements = list(dict.fromkeys(asked.placements))
    for variant in range(asked.variants):
        for placement in placements:
            for dose in _doses(operator, asked, in_dose=in_dose, is_named=is_named):
                yield Cell(operator.family, operator.name, placement, **dose, variant=variant)


def _doses(
    operator: Operator, asked: Perturbations, *, in_dose: bool, is_named: bool
) -> list[dict]:
    if operator.graded:
        return [{"strength": s} for s in sorted({asked.strength, *asked.strengths})]
    counts = {asked.n_edits} if is_named else set()
    counts |= set(asked.dose.n_edits) if in_dose else set()
    doses: list[dict] = [{"n_edits": n} for n in sorted(counts)]
    if in_dose:
        doses += [{"rate": rate} for rate in sorted(set(asked.dose.rates))]
    return doses


def _control_doses(asked: Perturbations, names: list[str]) -> list[int]:
    """The control has the doses of `keyboard`, whose edits it makes elsewhere."""
    doses = {asked.n_edits}
    if "keyboard" in asked.dose.operators:
        doses |= set(asked.dose.n_edits)
    return sorted(doses)
