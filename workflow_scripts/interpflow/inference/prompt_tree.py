"""Which beginnings of prompts are worth running once, and for which prompts together.

Two kinds of sharing. A *branch* is a stretch of tokens that so many prompts share that it is run by
itself, before any of them; branches nest. A *stem* is shared by a few prompts of one batch, and the
stems of a batch are run in one pass. Sharing goes by exact tokens, and the last token of a
prompt is never shared: that is where its answers begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from interpflow.inference.batching import plan_batches

# A pass over a single row costs about as much as these tokens do in a full batch (measured with a
# GPT-2 of 12 layers on a CPU: it reads all weights).
BRANCH_SAVING = 256
# Tokens that stems must save a batch, which is a pass more with fewer rows.
STEM_SAVING = 128
# Shorter stretches do not repay their places in the attention of the rows that follow.
SHORTEST = 4


@dataclass(frozen=True)
class Batch:
    """Prompts (rows of the call) run together; row i continues stem `stem_of[i]`.

    stems: (prompt, stop): the tokens of that prompt from the branch's stop up to `stop`. Either
    no row has a stem or every row has.
    """

    rows: tuple[int, ...]
    stems: tuple[tuple[int, int], ...] = ()
    stem_of: tuple[int, ...] = ()

    def starts(self, branch_stop: int) -> list[int]:
        """Where the own tokens of each row begin."""
        if not self.stems:
            return [branch_stop] * len(self.rows)
        return [self.stems[stem][1] for stem in self.stem_of]


@dataclass
class Branch:
    """Tokens start .. stop - 1 of `prompt`, what is run after them, and branches that go on."""

    prompt: int
    start: int
    stop: int
    batches: list[Batch] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)

    @property
    def shares(self) -> bool:
        """Whether anything is run once for several prompts."""
        return bool(self.branches) or any(batch.stems for batch in self.batches)


@dataclass(frozen=True)
class _Group:
    members: tuple[int, ...]
    stop: int


def plan_prompts(prompts: Sequence[Sequence[int]], n_nodes: int, token_budget: int) -> Branch:
    """Plan the passes over prompts (token ids, none empty), each followed by `n_nodes` tokens.

    Batches are rows × longest row ≤ token_budget (but at least one row). The root has no tokens of
    its own; where nothing is worth sharing it has all the batches, and no branches.
    """
    root = Branch(0, 0, 0)
    if not prompts:
        return root
    order = sorted(range(len(prompts)), key=lambda row: tuple(prompts[row]))
    common = [0] + [_common(prompts[a], prompts[b]) for a, b in itertools.pairwise(order)]
    pending: list[tuple[Branch, int, int]] = []  # a branch, and a range of `order` to plan on it
    if not _branched(root, prompts, order, common, 0, len(order), pending):
        pending.append((root, 0, len(order)))
    pooled: dict[int, tuple[Branch, list[_Group]]] = {}
    while pending:
        branch, low, high = pending.pop()
        for start, stop in _children(common, low, high):
            own = [len(prompts[row]) - branch.stop + n_nodes for row in order[start:stop]]
            if stop - start > 1 and sum(own) > token_budget:
                if not _branched(branch, prompts, order, common, start, stop, pending):
                    pending.append((branch, start, stop))
                continue
            groups = _groups(common, order, start, stop, branch.stop)[1]
            pooled.setdefault(id(branch), (branch, []))[1].extend(groups)
    for branch, groups in pooled.values():
        branch.batches = _batches(prompts, groups, branch.stop, n_nodes, token_budget)
    return root


def plan_separately(prompts: Sequence[Sequence[int]], n_nodes: int, token_budget: int) -> Branch:
    """As `plan_prompts`, with nothing shared."""
    groups = [_Group((row,), 0) for row in range(len(prompts))]
    return Branch(0, 0, 0, _batches(prompts, groups, 0, n_nodes, token_budget))


def _branched(
    parent: Branch,
    prompts: Sequence[Sequence[int]],
    order: list[int],
    common: list[int],
    low: int,
    high: int,
    pending: list[tuple[Branch, int, int]],
) -> bool:
    """Give the range a branch of its own on `parent` if that saves enough."""
    if high - low < 2:
        return False
    stop = min(common[low + 1 : high])
    if (high - low - 1) * (stop - parent.stop) < BRANCH_SAVING:
        return False
    branch = Branch(order[low], parent.stop, stop)
    parent.branches.append(branch)
    pending.append((branch, low, high))
    return True


def _children(common: list[int], low: int, high: int) -> list[tuple[int, int]]:
    """The range cut where neighbours share least: subtrees of the prefix tree."""
    if high - low < 2:
        return [(low, high)]
    least = min(common[low + 1 : high])
    cuts = [low, *(at for at in range(low + 1, high) if common[at] == least), high]
    return list(itertools.pairwise(cuts))


def _groups(
    common: list[int], order: list[int], low: int, high: int, base: int
) -> tuple[int, list[_Group]]:
    """(tokens saved, groups) for a subtree: one stem for all of it, or the best of its parts.

    As deep as the tree; a range that fits into a batch is less deep than the root of its size.
    """
    if high - low == 1:
        return 0, [_Group((order[low],), base)]
    stop = min(common[low + 1 : high])
    together = (high - low - 1) * (stop - base) if stop - base >= SHORTEST else 0
    parts = [_groups(common, order, *child, base) for child in _children(common, low, high)]
    apart = sum(saved for saved, _ in parts)
    if together > apart:
        return together, [_Group(tuple(order[low:high]), stop)]
    return apart, [group for _, groups in parts for group in groups]


def _batches(
    prompts: Sequence[Sequence[int]],
    groups: list[_Group],
    base: int,
    n_nodes: int,
    token_budget: int,
) -> list[Batch]:
    """Batches of groups on a branch that stops at `base`, those with stems first."""
    alone = [row for group in groups if len(group.members) == 1 for row in group.members]
    stemmed = [group for group in groups if len(group.members) > 1]
    saved = sum((len(group.members) - 1) * (group.stop - base) for group in stemmed)
    batches: list[Batch] = []
    if saved < STEM_SAVING:
        alone += [row for group in stemmed for row in group.members]
    else:
        batches = _stemmed(prompts, stemmed, n_nodes, token_budget)
    alone.sort()
    lengths = [len(prompts[row]) - base + n_nodes for row in alone]
    for batch in plan_batches(lengths, token_budget):
        batches.append(Batch(tuple(alone[at] for at in batch)))
    return batches


def _stemmed(
    prompts: Sequence[Sequence[int]],
    groups: list[_Group],
    n_nodes: int,
    token_budget: int,
) -> list[Batch]:
    """Groups in batches, those with the longest rows first."""

    def width(row: int, group: _Group) -> int:
        return len(prompts[row]) - group.stop + n_nodes

    parts: list[tuple[int, _Group]] = []
    for group in groups:
        # Padding is within bounds when no row is less than half as long as its part's longest.
        members = sorted(group.members, key=lambda row: (-len(prompts[row]), row))
        while members:
            longest = width(members[0], group)
            fitting = max(1, token_budget // longest)
            part = [row for row in members[:fitting] if 2 * width(row, group) >= longest]
            members = members[len(part) :]
            parts.append((longest, _Group(tuple(part), group.stop)))
    batches: list[list[_Group]] = []
    n_rows = widest = 0
    for longest, group in sorted(parts, key=lambda part: (-part[0], part[1].members)):
        n_rows += len(group.members)
        if not batches or n_rows * widest > token_budget:
            batches.append([])
            n_rows, widest = len(group.members), longest
        batches[-1].append(group)
    return [
        Batch(
            tuple(row for group in batch for row in group.members),
            tuple((group.members[0], group.stop) for group in batch),
            tuple(stem for stem, group in enumerate(batch) for _ in group.members),
        )
        for batch in batches
    ]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that two prompts share from the start, the last token of neither among them."""
    same, size = 0, min(len(first), len(second)) - 1
    while same < size:
        middle = (same + size + 1) // 2
        if first[same:middle] == second[same:middle]:
            same = middle
        else:
            size = middle - 1
    return same
