"""Layer plans executed: the residual stream that each plan ends with.

The model's list of blocks stays as it is; blocks are called one by one (`own_loop`). Steps that
plans begin with in common run once per batch of rows: the plans form a tree, walked depth first, so
that only the states at branching points of one path are held. The intact model is a plan like any
other and goes through the same calls on the same batches: it differs from itself by nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.layers.own_loop import Entry, check_runs_alone, enter, quick_linears
from interpflow.engine.layers.replacements import Replacement, Replacements, site_of
from interpflow.engine.layers.row_batches import padded, row_batches
from interpflow.engine.layers.trie import Node, plan_trie
from interpflow.engine.model import Model, full_precision, rotates_by_length
from interpflow.errors import UserError
from interpflow.plans.layer_plan import Ablation, LayerPlan, Step

TOKENS_PER_PASS = 2048


class PlanRunner:
    """Runs plans on rows of tokens.

    plans: the same plan may be named twice. neutral: token ids of the documents that mean and
    resample ablations read (see `replacements`). fast: float32 linears on a CPU may be computed by
    other kernels, which moves the last bits; without, a plan of all blocks in their order gives the
    model's own states bit for bit.
    n_steps_run and n_steps_shared: steps that ran, and that did not because another plan had run
    them already, counted per batch; n_block_tokens: token places (padding included) run through a
    block; blocks_executed: of each plan, the blocks that one batch went through.
    Raises UserError for a plan naming what the model does not have, an ablation of what cannot be
    reached in this model, and a model whose blocks share more than the residual stream.
    """

    def __init__(
        self,
        model: Model,
        plans: Sequence[LayerPlan],
        *,
        neutral: Sequence[Sequence[int]] = (),
        seed: int = 0,
        tokens_per_pass: int = TOKENS_PER_PASS,
        fast: bool = True,
    ) -> None:
        model.check_ready()
        check_runs_alone(model)
        for plan in plans:
            plan.check(model.n_layers, model.n_heads)
        self.model, self.plans = model, tuple(plans)
        self._trie = plan_trie(self.plans)
        self._replacements = Replacements(model, self.plans, neutral, seed, tokens_per_pass)
        self._tokens_per_pass, self._fast = tokens_per_pass, fast
        self.n_steps_run = self.n_steps_shared = self.n_block_tokens = 0
        self.blocks_executed = [0] * len(self.plans)

    def states(
        self,
        rows: Sequence[Sequence[int]],
        places: Sequence[Sequence[int]],
        donors: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[PlanStates]:
        """What each plan ends with at the scored places of each row, a batch of rows at a time.

        rows: token ids, of any lengths. places: per row the positions that are read, in the order
        in which they are wanted; the first is the last position of the row's prompt where a plan
        patches. donors: per row the token ids of the prompt that is patched from.
        Of one batch, plan 0 comes first, then the others (those that share steps one after the
        other); every plan comes once for every batch, and every row is in one batch. What follows
        the last position that is read is not run.
        Raises UserError for tokens and positions that do not exist, and see `Replacements`.
        """
        _check(rows, places, donors)
        cut = not rotates_by_length(self.model.module)
        kept = [list(row[: max(at) + 1] if cut else row) for row, at in zip(rows, places)]
        for chosen in row_batches([len(row) for row in kept], self._tokens_per_pass, self.model):
            batch = _Batch.of(chosen, places, self.model.device)
            with quick_linears(self.model, self._fast):
                mine = [kept[number] for number in chosen]
                entry = enter(self.model, padded(self.model, mine))
                replacements = self._replacements.of_batch(
                    mine,
                    [len(row) for row in mine],
                    [places[number][0] for number in chosen],
                    None if donors is None else [donors[number] for number in chosen],
                )
            yield from self._walk(entry, replacements, batch)

    def unembed(self, states: Tensor) -> Tensor:
        """Logits [..., vocab] of states [..., d_model], float32 at least."""
        with quick_linears(self.model, self._fast):
            return full_precision(self.model.architecture.unembed(states))

    def _walk(
        self,
        entry: Entry,
        replacements: dict[tuple[int, Ablation], Replacement],
        batch: _Batch,
    ) -> Iterator[PlanStates]:
        """Depth first. A plan that others go on from is handed over after them, so that plan 0,
        whose path is walked first, is always the first."""
        before = self.n_steps_run
        todo: list[tuple[Node, Tensor, int, bool]] = [(self._trie, entry.embedded, 0, True)]
        while todo:
            node, states, n_blocks, to_run = todo.pop()
            if to_run and node.step is not None:
                with quick_linears(self.model, self._fast):
                    states = run_step(entry, node.step, states, replacements)
                n_blocks += len(node.step.blocks)
                self.n_steps_run += 1
                self.n_block_tokens += states[..., 0].numel() * len(node.step.blocks)
            waits = to_run and bool(node.children) and 0 not in node.plans
            if node.plans and not waits:
                chosen = states[batch.at_rows, batch.at_places]
                for plan in node.plans:
                    self.blocks_executed[plan] = n_blocks
                    yield PlanStates(plan, batch.rows, batch.n_places, chosen)
            if not to_run:
                continue
            if node.plans and waits:
                todo.append((node, states, n_blocks, False))
            for child in reversed(node.children.values()):
                todo.append((child, states, n_blocks, True))
        steps = sum(len(plan.steps) for plan in self.plans)
        self.n_steps_shared += steps - (self.n_steps_run - before)


def run_step(
    entry: Entry,
    step: Step,
    states: Tensor,
    replacements: dict[tuple[int, Ablation], Replacement],
) -> Tensor:
    """The residual stream [row, position, d_model] after one step.

    Blocks side by side all read the stream as it is before the step, and what each adds to it is
    added.
    """
    if len(step.blocks) != 1:
        return states + sum(entry.run(each, states)[0] - states for each in step.blocks)
    block = step.blocks[0]
    edits, whole = [], None
    if step.ablation is not None:
        replacement = replacements[block, step.ablation]
        site = site_of(block, step.ablation)
        if site is None:
            whole = replacement
        else:
            edit = replacement.edit(site, 0, states.shape[1])
            edits = [] if edit is None else [edit]
    output, _ = entry.run(block, states, edits)
    if whole is not None:
        output = states + whole.update(output - states)
    return output if step.factor == 1.0 else states + step.factor * (output - states)


def _check(
    rows: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    donors: Sequence[Sequence[int]] | None,
) -> None:
    if len(rows) != len(places) or (donors is not None and len(donors) != len(rows)):
        raise UserError(
            f"{len(rows)} rows, {len(places)} lists of positions and "
            f"{'no' if donors is None else len(donors)} donors do not belong together",
            where="layer plans",
        )
    for number, (row, at) in enumerate(zip(rows, places)):
        if not at or min(at) < 0 or max(at) >= len(row):
            raise UserError(
                f"positions {list(at)} cannot be read in a row of {len(row)} tokens",
                where=f"layer plans, row {number}",
                remedy="name at least one position from 0 to the last",
            )


@dataclass(frozen=True, eq=False)
class PlanStates:
    """What one plan ends with on one batch of rows.

    plan: its number in the runner's plans. rows: numbers of the rows. n_places: scored places of
    each. states: the residual stream before the final norm, [place, d_model]: all places of
    rows[0], then those of rows[1], and so on.
    """

    plan: int
    rows: tuple[int, ...]
    n_places: tuple[int, ...]
    states: Tensor

    def by_row(self) -> Iterator[tuple[int, Tensor]]:
        """Each row's number and its states [place, d_model]."""
        yield from zip(self.rows, self.states.split(list(self.n_places)))


@dataclass(frozen=True, eq=False)
class _Batch:
    """Rows of a batch and where they are read: batch row and position, int64 [place]."""

    rows: tuple[int, ...]
    n_places: tuple[int, ...]
    at_rows: Tensor
    at_places: Tensor

    @classmethod
    def of(
        cls, chosen: Sequence[int], places: Sequence[Sequence[int]], device: torch.device
    ) -> _Batch:
        n_places = tuple(len(places[number]) for number in chosen)
        rows = torch.arange(len(chosen)).repeat_interleave(torch.tensor(n_places))
        at = torch.tensor([place for number in chosen for place in places[number]])
        return cls(tuple(chosen), n_places, rows.to(device), at.to(device))
