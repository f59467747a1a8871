"""Minimal sufficient and minimal necessary sets of blocks: found on some items, then confirmed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from interpflow.config.layer_surgery import SurgerySearch
from interpflow.plans.requests import NamedPlan, named_plan
from interpflow.stats.clustered_share import mean_share
from interpflow.stats.minimal_sets import BlockSet, FoundSet, Search, search
from interpflow.stats.record import MIN_CLUSTERS, Estimate

LOG = logging.getLogger(__name__)

Kind = Literal["sufficient", "necessary"]
KINDS: tuple[Kind, ...] = ("sufficient", "necessary")
Verdict = Literal["holds", "fails", "unclear"]
# Plans and item ids → by plan, written out, by item id: whether the item is answered (None: it is
# not scored).
Answers = Callable[[Sequence[NamedPlan], Sequence[str]], Mapping[str, Mapping[str, bool | None]]]


@dataclass(frozen=True)
class SearchedTask:
    """Items of a task that the intact model answers: those that are searched on, and those that
    only confirm; with the family of each item."""

    task: str
    search: tuple[str, ...]
    confirm: tuple[str, ...]
    families: Mapping[str, str]


@dataclass(frozen=True)
class ConfirmedSet:
    """A set with what it is worth on the confirm items.

    kept: share of them still answered when only a sufficient set is run, or a necessary one is
    skipped. one_fewer: by block, the share with this block out of the set: a minimal set fails
    then. threshold: of `kept`, from below for a sufficient set and from above for a necessary one.
    """

    task: str
    kind: Kind
    found: FoundSet
    plan: NamedPlan
    threshold: float
    found_share: float
    kept: Estimate
    one_fewer: Mapping[int, Estimate]

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(sorted(self.found.elements))

    @property
    def verdict(self) -> Verdict:
        """By the interval; "fails" also where the search itself found no set, "unclear" also where
        there are too few families of items to say anything."""
        low, high = self.kept.ci_low, self.kept.ci_high
        if not self.found.holds:
            return "fails"
        if math.isnan(low) or (self.kept.n_clusters or self.kept.n_units) < MIN_CLUSTERS:
            return "unclear"
        enough, short = low >= self.threshold, high < self.threshold
        if self.kind == "necessary":
            enough, short = high <= self.threshold, low > self.threshold
        return "holds" if enough else "fails" if short else "unclear"

    @property
    def breaks(self) -> int:
        """Blocks without which the set misses the threshold on the confirm items too."""
        shares = [one.estimate for one in self.one_fewer.values()]
        if self.kind == "sufficient":
            return sum(share < self.threshold for share in shares)
        return sum(share > self.threshold for share in shares)


def set_plan(kind: Kind, blocks: BlockSet, n_layers: int) -> NamedPlan:
    """The plan that tries a set: only a sufficient one is run, a necessary one is skipped."""
    everything = frozenset(range(n_layers))
    gone = everything - blocks if kind == "sufficient" else blocks
    if not gone:
        return named_plan({"kind": "identity"}, n_layers, 1)
    return named_plan({"kind": "skip", "blocks": sorted(gone)}, n_layers, 1)


def find_sets(
    tasks: Sequence[SearchedTask],
    n_layers: int,
    settings: SurgerySearch,
    answers: Answers,
    *,
    level: float = 0.95,
) -> list[ConfirmedSet]:
    """A minimal sufficient and a minimal necessary set of each task.

    All searches go forward together: what they want next is measured in as few calls as there are
    different wishes, and no plan is run twice on a task.
    """
    known: dict[tuple[str, str], float] = {}
    found = _searched(tasks, n_layers, settings, answers, known)
    confirmed = []
    for place, (task, kind) in enumerate(found, 1):
        set_found = found[task, kind]
        about = next(one for one in tasks if one.task == task)
        confirmed.append(_confirmed(about, kind, set_found, n_layers, settings, answers, level))
        LOG.info(
            "%s: %s set of %d blocks (%d of %d)", task, kind, len(set_found.elements), place,
            len(found),
        )  # fmt: skip
    return confirmed


def _searched(
    tasks: Sequence[SearchedTask],
    n_layers: int,
    settings: SurgerySearch,
    answers: Answers,
    known: dict[tuple[str, str], float],
) -> dict[tuple[str, Kind], FoundSet]:
    by_name = {task.task: task for task in tasks}
    searches: dict[tuple[str, Kind], Search] = {}
    wanted: dict[tuple[str, Kind], list[BlockSet]] = {}
    found: dict[tuple[str, Kind], FoundSet] = {}
    for task in tasks:
        for kind in KINDS:
            # A necessary set is judged by what is lost, so that more is better for both.
            threshold = settings.keep_share if kind == "sufficient" else settings.lose_share
            searches[task.task, kind] = search(
                range(n_layers), threshold, max_tried=settings.max_plans
            )
            wanted[task.task, kind] = next(searches[task.task, kind])
    while wanted:
        _measure(wanted, by_name, n_layers, answers, known)
        LOG.info("minimal sets: %d searches go on, %d plans tried", len(wanted), len(known))
        for (task, kind), sets in list(wanted.items()):
            shares = [known[task, str(set_plan(kind, one, n_layers).plan)] for one in sets]
            scores = shares if kind == "sufficient" else [1 - share for share in shares]
            try:
                wanted[task, kind] = searches[task, kind].send(scores)
            except StopIteration as end:
                found[task, kind] = end.value
                del wanted[task, kind]
    return {key: found[key] for key in searches}


def _measure(
    wanted: Mapping[tuple[str, Kind], Sequence[BlockSet]],
    tasks: Mapping[str, SearchedTask],
    n_layers: int,
    answers: Answers,
    known: dict[tuple[str, str], float],
) -> None:
    """Fill in what is wanted, tasks that want the same plans in one call."""
    new: dict[str, dict[str, NamedPlan]] = {}
    for (task, kind), sets in wanted.items():
        for one in sets:
            plan = set_plan(kind, one, n_layers)
            if (task, str(plan.plan)) not in known:
                new.setdefault(task, {})[str(plan.plan)] = plan
    alike: dict[frozenset[str], list[str]] = {}
    for task, plans in new.items():
        alike.setdefault(frozenset(plans), []).append(task)
    for names in alike.values():
        plans = [new[names[0]][text] for text in sorted(new[names[0]])]
        ids = [one for name in names for one in tasks[name].search]
        measured = answers(plans, ids)
        for plan in map(str, (named.plan for named in plans)):
            for name in names:
                known[name, plan] = _share(measured[plan], tasks[name].search)


def _share(answered: Mapping[str, bool | None], ids: Sequence[str]) -> float:
    known = [answered[one] for one in ids if answered.get(one) is not None]
    return sum(map(bool, known)) / len(known) if known else math.nan


def _confirmed(
    task: SearchedTask,
    kind: Kind,
    found: FoundSet,
    n_layers: int,
    settings: SurgerySearch,
    answers: Answers,
    level: float,
) -> ConfirmedSet:
    plan = set_plan(kind, found.elements, n_layers)
    fewer = {
        block: set_plan(kind, found.elements - {block}, n_layers)
        for block in sorted(found.elements)
    }
    measured = answers([plan, *fewer.values()], task.confirm)
    families = np.array([task.families[one] for one in task.confirm])

    def kept(named: NamedPlan) -> Estimate:
        values = _values(measured[str(named.plan)], task.confirm)
        return mean_share(
            values, clusters=families, quantity="share of intact accuracy kept", level=level
        )

    sufficient = kind == "sufficient"
    return ConfirmedSet(
        task=task.task,
        kind=kind,
        found=found,
        plan=plan,
        threshold=settings.keep_share if sufficient else 1 - settings.lose_share,
        found_share=found.score if sufficient else 1 - found.score,
        kept=kept(plan),
        one_fewer={block: kept(named) for block, named in fewer.items()},
    )


def _values(answered: Mapping[str, bool | None], ids: Sequence[str]) -> NDArray[Any]:
    found = [answered.get(one) for one in ids]
    return np.array([np.nan if value is None else float(value) for value in found])
