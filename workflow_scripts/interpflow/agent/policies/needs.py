"""What neutral text and tasks need of a model: hypotheses that claim no anomaly, and their tests.

Every block is left out on each task (in a deep model ranges first, then what lies in the two
costliest and in the cheapest range). Three kinds of findings are worth a test: which block text
misses most, which least, and neighbours that can be exchanged for less than leaving one out costs;
a task that needs a block more than other tasks do; and a task that does not need such a block.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from itertools import chain, pairwise, zip_longest
from statistics import fmean
from typing import Any

from interpflow.agent.policies.findings import MIN_PROBABILITY, Finding, directed, sized
from interpflow.agent.policies.looking import (
    Plan,
    Seen,
    Steps,
    compared,
    explored,
    key,
    skip,
    swap,
)
from interpflow.agent.policies.steps import decide
from interpflow.agent.rules.actions import MOST_PLANS, Action
from interpflow.agent.rules.claims import METRIC
from interpflow.agent.work.session import MOST_IDLE, View

MOST_TESTS = 10
# Share of all slots that is left: what is explored later can still be decided.
RESERVE_SHARE = 0.2
# A change of the log-probability that does not matter: of the probability by less than a quarter,
# and by less than a tenth of what the task's costliest block costs.
SPARED, SPARED_SHARE = math.log(1.25), 0.1
# Of what a block's absence costs a task, what it must cost beyond its cost to other tasks.
OWN_SHARE = 0.5
TEXT_SHARE = 0.3  # of the tests
# Turns of looking at tasks: a session in which no hypothesis is open for longer is ended.
TASK_TURNS = MOST_IDLE - 3
TURNS_PER_TEST = 3
PER_BLOCK = 2  # tests of one kind about one block

Damage = Mapping[str, Mapping[int, Seen]]  # by task and block left out


def decide_needs(view: View, looked: Mapping[str, Seen]) -> Steps:
    """Findings on text first, then those on tasks; the surest of each first, as what is confirmed
    earns level for the tests after it. looked: what was explored on text."""
    begun = yield Action("list", {"what": "hypotheses"})
    if begun["n"] == 0 and looked:
        yield _nothing_found(looked)
    budget = view.settings.budget
    reserve = math.ceil(RESERVE_SHARE * budget.confirmatory)
    n_tests = min(MOST_TESTS, begun["budget"]["confirmatory"] - reserve)
    if n_tests <= 0:
        return
    on_text = (yield from _on_text(view, looked))[: math.ceil(n_tests * TEXT_SHARE)]
    yield from _decided(on_text)
    n_tests -= len(on_text)
    turns = min(TASK_TURNS, begun["budget"]["turns"] - TURNS_PER_TEST * (MOST_TESTS + 1))
    damage = yield from _look_at_tasks(view, turns)
    needed = _needed(view, damage)
    found = chain(*zip_longest(needed, _spared(view, damage, needed)))
    yield from _decided([finding for finding in found if finding is not None][:n_tests])


def _nothing_found(looked: Mapping[str, Seen]) -> Action:
    """A note, which the report tells as exploratory, where no anomaly was worth a test."""
    best = min(looked.values(), key=lambda seen: seen.mean)
    return Action(
        "note",
        {
            "kind": "observation",
            "text": "No anomaly was worth a test: of all plans explored on neutral text, "
            f"{{{{{best.id}.plan}}}} came closest to an improvement, with a change of the loss of "
            f"{{{{{best.id}.delta_loss}}}}.",
            "refs": [best.id],
        },
    )


def _decided(findings: Sequence[Finding]) -> Steps:
    """Test findings; one that is refused, as the power or the units do not suffice, is left."""
    for finding in sorted(findings, key=lambda each: -each.probability):
        where: dict[str, Any] = {"measure": "text", "metric": METRIC}
        if finding.task:
            where = {"measure": "answers", "task": finding.task, "metric": "delta_log_prob"}
        if finding.against is not None:
            where["against"] = finding.against
        yield from decide(
            {"text": finding.text, "scope": finding.task or "neutral text"},
            {**where, "plan": finding.plan, "prediction": finding.prediction, "n": finding.n},
            finding.probability,
        )


def _look_at_tasks(view: View, turns: int) -> Generator[Action, Mapping[str, Any], Damage]:
    """Single blocks left out on tasks, those with most units first."""
    n_layers: int = view.description["n_layers"]
    tasks: Mapping[str, Any] = view.description["tasks"]
    damage: dict[str, dict[int, Seen]] = {}
    for task in sorted(tasks, key=lambda name: (-tasks[name]["confirm"], name)):
        looked: dict[str, Seen] = {}
        spans, singles = [(0, n_layers)], dict[int, Seen]()
        while spans and turns > 0:
            parts = [part for span in spans for part in _parts(span, MOST_PLANS // len(spans))]
            turns -= 1
            affordable = yield from explored([skip(part) for part in parts], looked, task)
            seen = [part for part in parts if key(skip(part)) in looked]
            singles |= {a: looked[key(skip((a, b)))] for a, b in seen if b - a == 1}
            wide = sorted(
                (part for part in seen if part[1] - part[0] > 1),
                key=lambda part: looked[key(skip(part))].mean / (part[1] - part[0]),
            )
            spans = [*wide[:2], wide[-1]] if len(wide) > 3 else wide  # costs are negative
            if not affordable:
                turns, spans = 0, []
        if singles:
            damage[task] = singles
    return damage


def _on_text(
    view: View, looked: Mapping[str, Seen]
) -> Generator[Action, Mapping[str, Any], list[Finding]]:
    """Which block is missed most and least, and neighbours that could as well be exchanged."""
    n_layers: int = view.description["n_layers"]
    single = {
        block: looked[key(skip((block, block + 1)))]
        for block in range(n_layers)
        if key(skip((block, block + 1))) in looked
    }
    if len(single) < 2:
        return []
    found: list[Finding | None] = []
    order = sorted(single, key=lambda block: single[block].mean)
    least, second, most = order[0], order[-2], order[-1]
    seen = yield from compared(single[most], single[second], METRIC)
    text = (
        f"Text needs block {most} most: leaving it out costs at least {{least:g}} nats per token "
        f"more than leaving out block {second}, the next by what was explored."
    )
    found.append(directed(view, text, _single(most), seen, "increase", against=_single(second)))
    pairs = {
        (block, cheaper): single[cheaper].mean - looked[key(swap(block))].mean
        for block in range(1, n_layers - 2)
        if block in single and block + 1 in single and key(swap(block)) in looked
        for cheaper in [min(block, block + 1, key=lambda each: single[each].mean)]
    }
    if pairs:
        block, cheaper = max(pairs, key=lambda pair: pairs[pair])
        seen = yield from compared(looked[key(swap(block))], single[cheaper], METRIC)
        text = (
            f"Blocks {block} and {block + 1} can be exchanged for at least {{least:g}} nats per "
            f"token less than leaving out block {cheaper} costs, the cheaper of the two by what "
            "was explored."
        )
        found.append(directed(view, text, swap(block), seen, "decrease", against=_single(cheaper)))
    text = (
        f"Even block {least}, by what was explored the one that text misses least, is not "
        "idle: leaving it out costs at least {least:g} nats per token."
    )
    found.append(directed(view, text, _single(least), single[least], "increase", block=least))
    return [finding for finding in found if finding is not None]


def _needed(view: View, damage: Damage) -> list[Finding]:
    """Tasks that need a block, those first that need it most beyond what other tasks do: one test
    for a task."""
    found: list[Finding] = []
    for task, block in sorted(_pairs(damage), key=lambda pair: -_excess(damage, *pair)):
        cost = -damage[task][block].mean
        if cost <= 0 or _excess(damage, task, block) < OWN_SHARE * cost:
            continue
        if _taken(found, task, block):
            continue
        text = (
            f"{task} needs block {block}: without it the answer's log-probability falls by at "
            "least {least:g} nats."
        )
        finding = directed(
            view, text, _single(block), damage[task][block], "decrease", task=task, block=block
        )
        if finding is not None:
            found.append(finding)
    return found


def _spared(view: View, damage: Damage, needed: Sequence[Finding]) -> list[Finding]:
    """Tasks that do not need a block that another task needs."""
    found: list[Finding] = []
    for other in needed:
        block = other.block
        rest = [t for t in damage if block in damage[t] and t not in {n.task for n in needed}]
        for task in sorted(rest, key=lambda task: (-damage[task][block].n, task)):
            if _taken(found, task, block):
                continue
            largest = max(-seen.mean for seen in damage[task].values())
            reach = max(view.settings.smallest_effect, min(SPARED, SPARED_SHARE * largest))
            reach = float(f"{reach:.2g}")
            prediction = {"within": [-reach, reach]}
            n, probability = sized(view, damage[task][block], prediction, task)
            if probability >= MIN_PROBABILITY:
                text = (
                    f"{task} does not need block {block}, as {other.task} seems to: without "
                    f"it the answer's log-probability changes by less than {reach:g} nats."
                )
                found.append(
                    Finding(text, _single(block), prediction, probability, n, task, block=block)
                )
                break
    return found


def _taken(found: Sequence[Finding], task: str, block: int) -> bool:
    """Units of a task are few; and blocks should not all be the same one."""
    about = sum(finding.block == block for finding in found)
    return about >= PER_BLOCK or any(finding.task == task for finding in found)


def _pairs(damage: Damage) -> list[tuple[str, int]]:
    return [(task, block) for task, blocks in damage.items() for block in blocks]


def _excess(damage: Damage, task: str, block: int) -> float:
    """What a block's absence costs a task beyond its mean cost to the others, in nats."""
    others = [-damage[t][block].mean for t in damage if t != task and block in damage[t]]
    return -damage[task][block].mean - (fmean(others) if others else 0.0)


def _parts(span: tuple[int, int], n: int) -> list[tuple[int, int]]:
    """A span in at most n parts of like size, none empty."""
    first, end = span
    n = min(n, end - first)
    cuts = [first + (end - first) * i // n for i in range(n + 1)]
    return list(pairwise(cuts))


def _single(block: int) -> Plan:
    return skip((block, block + 1))
