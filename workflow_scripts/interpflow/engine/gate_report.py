"""What the gates found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

NO_ROUTE = "no independent route"


def no_route(name: str, tolerance: float, reason: str) -> GateRow:
    """The row of a gate that this architecture gives no means to check."""
    return GateRow(name, None, None, tolerance, f"{NO_ROUTE}: {reason}")


@dataclass(frozen=True)
class GateRow:
    """One gate: passed when `value` is on the right side of `tolerance` (see `detail`).

    Neither passed nor failed, passed and value None: there is no way to check it on this
    architecture that shares nothing with what is checked; `detail` says why.
    """

    name: str
    passed: bool | None
    value: float | None
    tolerance: float
    detail: str


@dataclass(frozen=True)
class GateReport:
    """All gates, and per metric the largest difference between equivalent computations."""

    rows: tuple[GateRow, ...]
    noise_floor: dict[str, float]

    @property
    def failed(self) -> tuple[GateRow, ...]:
        return tuple(row for row in self.rows if row.passed is False)

    @property
    def unchecked(self) -> tuple[GateRow, ...]:
        """Gates without an independent route."""
        return tuple(row for row in self.rows if row.passed is None)

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""
        return not self.failed

    def to_rows(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]

    def require(self) -> None:
        """Raise RuntimeError listing the failed gates, if any."""
        if self.failed:
            lines = [f"{r.name}: {r.value:.3g} ({r.detail})" for r in self.failed]
            raise RuntimeError("interventions are not proven to work:\n  " + "\n  ".join(lines))
