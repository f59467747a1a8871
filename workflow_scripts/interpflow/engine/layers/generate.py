"""Text continued by a model that runs a layer plan.

Every step of the plan keeps keys and values of its own, so that a block that a plan repeats has as
many caches as occurrences: what a step reads of earlier positions is what that same step made of
them. This gives what running the whole text anew for each token gives, and that is what is done for
models whose blocks are not proven to run on from keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from interpflow.engine.layers.execute import TOKENS_PER_PASS, run_step
from interpflow.engine.layers.own_loop import check_runs_alone, enter, quick_linears
from interpflow.engine.layers.replacements import Replacement, Replacements, site_of
from interpflow.engine.layers.row_batches import padded
from interpflow.engine.model import Model, full_precision, rotates_by_length
from interpflow.engine.passes.attention import Segment
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.proofs.blocks_proof import proven_blocks
from interpflow.errors import UserError
from interpflow.plans.layer_plan import Ablation, LayerPlan, Step

ByAblation = dict[tuple[int, Ablation], Replacement]
# Only the newest of the tokens of a batch are run where keys and values are kept.
CACHED_TOKENS = 8
# Keys and values of every block of every step, from the first position on.
Caches = list[list[Segment]]


def generate_with_plan(
    model: Model,
    plan: LayerPlan,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    ends: Collection[int] = (),
    neutral: Sequence[Sequence[int]] = (),
    donors: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    cache: bool = True,
    fast: bool = True,
    tokens_per_pass: int = TOKENS_PER_PASS,
    watch: Callable[[Sequence[int], Tensor], None] | None = None,
) -> list[list[int]]:
    """The likeliest tokens after each prompt of token ids, up to `max_new_tokens` of them.

    A token of `ends` ends a row and is not part of it. neutral, seed, fast: as for `PlanRunner`;
    donors: per prompt what a plan patches from. Ablations act at every position, those of new
    tokens too, but a patch, which is made at the prompt's last position.
    cache=False runs everything anew for every token. watch: is shown, for each new token, the
    numbers of the rows and their logits [row, vocab].
    Raises UserError as `PlanRunner` does, and where the text would outgrow the model's positions.
    """
    model.check_ready()
    check_runs_alone(model)
    plan.check(model.n_layers, model.n_heads)
    longest = max(map(len, prompts), default=0) + max_new_tokens - 1
    if max_new_tokens < 1 or (model.max_length is not None and longest > model.max_length):
        raise UserError(
            f"{max_new_tokens} new tokens cannot be generated: a text would have {longest} tokens, "
            f"the model has {model.max_length} positions",
            where="generation under a layer plan",
            remedy="shorten the prompts, or ask for another number of tokens",
        )
    replacements = Replacements(model, [plan], neutral, seed, tokens_per_pass)
    found: dict[int, list[int]] = {}
    blocks = _continuable(model) if cache else None
    lengths = [len(prompt) for prompt in prompts]
    most = tokens_per_pass * (CACHED_TOKENS if blocks else 1)
    for chosen in _batches(lengths, max_new_tokens, most):
        rows = [list(prompts[number]) for number in chosen]
        padded(model, rows)  # looks at the tokens
        with quick_linears(model, fast):
            written = replacements.of_batch(
                rows,
                [len(row) + max_new_tokens - 1 for row in rows],
                [len(row) - 1 for row in rows],
                None if donors is None else [donors[number] for number in chosen],
            )
            step = _cached(blocks, plan, written) if blocks else _anew(model, plan, written)
            shown = None if watch is None else _shown(watch, chosen)
            made = _continued(model, step, rows, max_new_tokens, frozenset(ends), shown)
        found.update(zip(chosen, made))
    return [found[number] for number in range(len(prompts))]


def _batches(lengths: Sequence[int], max_new_tokens: int, most: int) -> Iterator[list[int]]:
    """Numbers of prompts of like lengths, of at most `most` tokens with what is written."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: (lengths[number], number)):
        length = lengths[number]
        # Each position that prompts differ by is a further step for all of the batch.
        apart = bool(batch) and 2 * (length - lengths[batch[0]]) > max_new_tokens
        if apart or (batch and (len(batch) + 1) * (length + max_new_tokens) > most):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _shown(
    watch: Callable[[Sequence[int], Tensor], None], numbers: Sequence[int]
) -> Callable[[Sequence[int], Tensor], None]:
    return lambda rows, logits: watch([numbers[row] for row in rows], logits)


def _continued(
    model: Model,
    step: Callable[[Tensor], Tensor],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: frozenset[int],
    watch: Callable[[Sequence[int], Tensor], None] | None,
) -> list[list[int]]:
    """New tokens of prompts of like lengths.

    All are run from the length of the shortest on; the next token of a longer one is its own until
    it has none left. So no row is ever padded.
    """
    shortest = min(map(len, prompts))
    ids = torch.tensor([list(prompt[:shortest]) for prompt in prompts], device=model.device)
    made: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    while True:
        logits = full_precision(model.architecture.unembed(step(ids)))
        at = ids.shape[1]
        rows = [row for row, prompt in enumerate(prompts) if not ended[row] and len(prompt) <= at]
        if not bool(logits[rows].isfinite().all()):
            raise UserError(
                "the logits are not finite",
                where=f"generation under a layer plan, position {at - 1}",
                remedy="load the model with a wider dtype, or repeat fewer blocks",
            )
        if watch is not None and rows:
            watch(rows, logits[rows])
        new = logits.argmax(dim=-1).tolist()
        for row in rows:
            if new[row] not in ends:
                made[row].append(new[row])
            ended[row] = new[row] in ends or len(made[row]) == max_new_tokens
        if all(ended):
            return made
        new = [prompt[at] if at < len(prompt) else new[row] for row, prompt in enumerate(prompts)]
        ids = torch.cat([ids, torch.tensor(new, device=ids.device)[:, None]], dim=1)


def _anew(model: Model, plan: LayerPlan, written: ByAblation) -> Callable[[Tensor], Tensor]:
    """States [row, d_model] at the last position of ids [row, position], all of them run."""

    def run(ids: Tensor) -> Tensor:
        entry = enter(model, ids)
        states = entry.embedded
        for step in plan.steps:
            states = run_step(entry, step, states, written)
        return states[:, -1]

    return run


def _cached(blocks: Blocks, plan: LayerPlan, written: ByAblation) -> Callable[[Tensor], Tensor]:
    """The same, of which only the positions that are new since the last call are run."""
    caches: Caches = [[] for _ in plan.steps]

    def run(ids: Tensor) -> Tensor:
        first = caches[0][0].n_positions if caches and caches[0] else 0
        states = blocks.embed(ids)[:, first:]
        for number, step in enumerate(plan.steps):
            states, caches[number] = _run_on(
                blocks, step, states, caches[number], ids.shape[1], written
            )
        return states[:, -1]

    return run


def _run_on(
    blocks: Blocks,
    step: Step,
    states: Tensor,
    cache: list[Segment],
    length: int,
    written: ByAblation,
) -> tuple[Tensor, list[Segment]]:
    """One step on the states [row, position, d_model] of the last positions of texts of `length`
    tokens, and the keys and values of all positions in it."""
    first, kept = length - states.shape[1], []
    edits, whole = [], None
    if step.ablation is not None:
        replacement = written[step.blocks[0], step.ablation]
        site = site_of(step.blocks[0], step.ablation)
        if site is None:
            whole = replacement
        else:
            edit = replacement.edit(site, first, states.shape[1])
            edits = [] if edit is None else [edit]
    added = torch.zeros_like(states)
    output = states
    for place, block in enumerate(step.blocks):
        segments = cache[place : place + 1]
        result = blocks.run(block, states, first, length, segments=segments, keep=True, edits=edits)
        output, own = result.states, result.kept
        assert own is not None  # keep=True
        kept.append(_joined([*segments, own]))
        added = added + (output - states)
    if whole is not None:
        added = whole.update(added, first)
    plain = len(step.blocks) == 1 and whole is None and step.factor == 1.0
    return output if plain else states + step.factor * added, kept


def _joined(segments: Sequence[Segment]) -> Segment:
    if len(segments) == 1:
        return segments[0]
    return Segment(
        torch.cat([segment.keys for segment in segments], dim=2),
        torch.cat([segment.values for segment in segments], dim=2),
    )


def _continuable(model: Model) -> Blocks | None:
    """The model's blocks, where running on from keys and values is proven."""
    blocks = proven_blocks(model)
    if isinstance(blocks, str) or rotates_by_length(model.module):
        return None
    return blocks
