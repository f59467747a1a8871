"""Confirmatory slots: their levels, which of them are placebos, and units that none shares."""

from __future__ import annotations

import numpy as np

from interpflow.agent.laboratory import Laboratory, Measure
from interpflow.config.identity import content_hash, derived_seed
from interpflow.config.layer_surgery import SurgeryAgent
from interpflow.errors import UserError
from interpflow.stats.online_fdr import Decision, online_levels


class Slots:
    """Tests 1, 2, …, T of a session, T being the budget of confirmatory runs.

    A placebo takes a slot, and the test that it displaced takes another one at the end: both are
    within the budget, so an agent has `n_own` slots and T − n_own are kept for tests run again.
    Which slots are placebos is drawn from the seed; `commitment` fixes it without telling it.
    """

    def __init__(self, settings: SurgeryAgent, seed: int) -> None:
        total = settings.budget.confirmatory
        share = settings.placebo_share
        n_placebos = min(round(total * share / (1 + share)), total - 1)
        self.n_own = total - n_placebos
        draw = np.random.default_rng(derived_seed(seed, "placebos"))
        chosen = draw.permutation(np.arange(1, self.n_own + 1))[:n_placebos]
        self._placebos = frozenset(int(number) for number in chosen)
        self.commitment = content_hash([seed, sorted(self._placebos)])
        self._levels = online_levels(settings.method, settings.alpha, horizon=total)
        self._decisions: list[Decision] = []

    @property
    def next_number(self) -> int:
        """t of the next registration."""
        return len(self._decisions) + 1

    def next_level(self) -> float:
        """Its level, by the decisions so far."""
        return self._levels.next_level(self._decisions)

    def may_be_placebo(self, number: int) -> bool:
        """Whether a placebo was drawn for this slot."""
        return number in self._placebos

    def decide(self, p_value: float, rejected: bool) -> None:
        """The end of the slot. One without a decision of its own (withdrawn, placebo, unfinished)
        rejects nothing and has its level spent."""
        self._decisions.append(Decision(p_value, rejected))


class Pools:
    """Units of a laboratory in this session's order; those of tests are handed out once."""

    def __init__(self, laboratory: Laboratory, seed: int) -> None:
        self._laboratory, self._seed = laboratory, seed
        self._orders: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self._used: dict[tuple[str, str], int] = {}

    def explore(self, measure: Measure, task: str | None, n: int) -> tuple[str, ...]:
        """The same first units for everything that is explored, so that results are paired.
        Raises UserError where there are none."""
        units = self._order("explore", measure, task)[:n]
        if not units:
            raise UserError(
                "there are no units to explore", where=f"{measure} {task or ''}".strip()
            )
        return units

    def left(self, measure: Measure, task: str | None) -> int:
        """Units that no registration holds."""
        used = self._used.get((measure, task or ""), 0)
        return len(self._order("confirm", measure, task)) - used

    def take(self, measure: Measure, task: str | None, n: int) -> tuple[tuple[str, ...], str]:
        """Units never handed out before, and the name of their slice.

        Raises UserError where fewer than n are left.
        """
        left = self.left(measure, task)
        if left < n:
            raise UserError(
                f"{left} units are left that no test has read, and this one needs {n}",
                where=f"{measure} {task or ''}".strip(),
                remedy="register fewer units, or another measure or task",
            )
        start = self._used.get((measure, task or ""), 0)
        self._used[measure, task or ""] = start + n
        units = self._order("confirm", measure, task)[start : start + n]
        return units, f"{measure}{f':{task}' if task else ''}[{start}:{start + n}]"

    def _order(self, pool: str, measure: Measure, task: str | None) -> tuple[str, ...]:
        key = (pool, measure, task or "")
        if key not in self._orders:
            found = list(
                self._laboratory.explore_units(measure, task) if pool == "explore"
                else self._laboratory.confirm_units(measure, task)
            )  # fmt: skip
            draw = np.random.default_rng(derived_seed(self._seed, *key))
            self._orders[key] = tuple(found[i] for i in draw.permutation(len(found)))
        return self._orders[key]
