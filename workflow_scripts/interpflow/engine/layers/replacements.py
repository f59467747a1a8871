"""What is written in the place of an ablated part.

zero: nothing. mean: what the part writes in the intact model, on average over the documents of
neutral text: at the first position over their first positions, elsewhere over all others (at its
first position a model often keeps a state unlike all others, which a common mean would destroy).
resample: what it writes in the intact model at the same position of another neutral document, drawn
by the seed and the row's tokens, whatever else runs; a text longer than all documents is resampled
from several of them, one after another. patch: what it writes at the end of the row's
donor prompt, written at the end of the row's prompt alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.config.identity import derived_seed
from interpflow.engine.layers.own_loop import Entry, enter
from interpflow.engine.layers.row_batches import padded, row_batches
from interpflow.engine.model import Model
from interpflow.engine.passes.edits import Edit
from interpflow.engine.sites import Site
from interpflow.errors import UserError
from interpflow.plans.layer_plan import Ablation, LayerPlan

# What ablations of a part of a block act on; the block's own update is no site.
COMPONENTS = {"attention": "attn_out", "mlp": "mlp_out", "head": "head_out"}


def site_of(block: int, ablation: Ablation) -> Site | None:
    """The site that an ablation writes to; None for what the whole block adds."""
    component = COMPONENTS.get(ablation.part)
    return None if component is None else Site(component, block, ablation.head)


def ablations_of(plans: Iterable[LayerPlan]) -> list[tuple[int, Ablation]]:
    """Each (block, ablation) of the plans, once."""
    found = (
        (step.blocks[0], step.ablation)
        for plan in plans
        for step in plan.steps
        if step.ablation is not None
    )
    return list(dict.fromkeys(found))


def written_parts(entry: Entry, parts: Sequence[tuple[int, Ablation]]) -> dict[Part, Tensor]:
    """What parts write in the intact model, [row, position, width] each, by block and place."""
    found: dict[Part, Tensor] = {}
    states = entry.embedded
    keys = [_part(block, ablation) for block, ablation in parts]
    last = max(block for block, _ in keys)
    for block in range(last + 1):
        sites = list(dict.fromkeys(site for at, site in keys if at == block and site is not None))
        output, captured = entry.run(block, states, capture=sites)
        found.update({(block, site): state for site, state in captured.items()})
        if (block, None) in keys:
            found[block, None] = output - states
        states = output
    return found


Part = tuple[int, Site | None]


def _part(block: int, ablation: Ablation) -> Part:
    return block, site_of(block, ablation)


@dataclass(frozen=True, eq=False)
class Replacement:
    """Values [row, position, width] for all positions of a batch, or, with `at`, int64 [row], one
    position of each row [row, 1, width]."""

    values: Tensor
    at: Tensor | None = None

    def edit(self, site: Site, first: int, n_places: int) -> Edit | None:
        """It as an edit of `n_places` positions from `first` on; None where it has none there."""
        n_rows = self.values.shape[0]
        rows = torch.arange(n_rows, device=self.values.device)
        if self.at is None:
            chosen = self.values[:, first : first + n_places]
            places = torch.arange(n_places, device=rows.device)
            return Edit(
                site, rows.repeat_interleave(n_places), places.repeat(n_rows), chosen.flatten(0, 1)
            )
        inside = (self.at >= first) & (self.at < first + n_places)
        if not bool(inside.any()):
            return None
        return Edit(site, rows[inside], self.at[inside] - first, self.values[inside, 0])

    def update(self, written: Tensor, first: int = 0) -> Tensor:
        """What a block writes [row, position, d_model] from `first` on, replaced."""
        n_places = written.shape[1]
        if self.at is None:
            return self.values[:, first : first + n_places].to(written)
        rows = torch.arange(len(written), device=written.device)
        inside = (self.at >= first) & (self.at < first + n_places)
        changed = written.clone()
        changed[rows[inside], self.at[inside] - first] = self.values[inside, 0].to(written)
        return changed


class Replacements:
    """What the ablations of some plans write, for one batch of rows after another.

    neutral: token ids of neutral documents. Means are taken once, when they are first needed;
    other documents and donors run beside each batch that needs them, so that nothing grows with
    their number.
    """

    def __init__(
        self,
        model: Model,
        plans: Iterable[LayerPlan],
        neutral: Sequence[Sequence[int]],
        seed: int,
        tokens_per_pass: int,
    ) -> None:
        self._model, self._neutral, self._seed = model, [list(row) for row in neutral], seed
        self._tokens_per_pass = tokens_per_pass
        self._ablations = ablations_of(plans)
        self._means: dict[Part, Tensor] | None = None
        for block, ablation in self._ablations:
            site = site_of(block, ablation)
            if site is not None:
                model.check_site(site)
        if self._of("mean") and not any(len(row) > 1 for row in self._neutral):
            _lacking("a mean needs neutral documents of two tokens or more")

    def of_batch(
        self,
        rows: Sequence[Sequence[int]],
        lengths: Sequence[int],
        ends: Sequence[int],
        donors: Sequence[Sequence[int]] | None,
    ) -> dict[tuple[int, Ablation], Replacement]:
        """The replacement of each ablation. rows: the tokens that are known of each row; lengths:
        positions of each that will be run; ends: last position of each row's prompt.

        Raises UserError where a document or a donor is missing.
        """
        found: dict[tuple[int, Ablation], Replacement] = {}
        longest = max(lengths)
        for block, ablation in self._of("zero"):
            nothing = torch.zeros((), dtype=self._model.dtype, device=self._model.device)
            width = self._width(site_of(block, ablation))
            values = nothing.expand(len(rows), longest, width)
            found[block, ablation] = Replacement(values)
        for block, ablation in self._of("mean"):
            first, rest = self._mean(_part(block, ablation))
            values = torch.cat([first[None], rest.expand(longest - 1, -1)])
            found[block, ablation] = Replacement(values.expand(len(rows), -1, -1))
        found.update(self._resampled(rows, lengths))
        found.update(self._patched(rows, ends, donors))
        return found

    def _of(self, method: str) -> list[tuple[int, Ablation]]:
        return [(block, each) for block, each in self._ablations if each.method == method]

    def _width(self, site: Site | None) -> int:
        return self._model.d_model if site is None else self._model.architecture.width(site, 0)

    def _mean(self, part: Part) -> tuple[Tensor, Tensor]:
        if self._means is None:
            self._means = _mean_written(
                self._model, self._neutral, self._of("mean"), self._tokens_per_pass
            )
        first, rest = self._means[part]
        return first, rest

    def _resampled(
        self, rows: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> Mapping[tuple[int, Ablation], Replacement]:
        wanted = self._of("resample")
        if not wanted:
            return {}
        chosen = [self._other(list(row), length) for row, length in zip(rows, lengths)]
        seen = written_parts(enter(self._model, padded(self._model, chosen)), wanted)
        return {each: Replacement(seen[_part(*each)]) for each in wanted}

    def _other(self, row: list[int], length: int) -> list[int]:
        """The first `length` tokens of a document that does not begin with the row, drawn from
        those that are long enough; where none is, of several documents one after another."""
        others = [doc for doc in self._neutral if doc and doc[: len(row)] != row[: len(doc)]]
        if not others:
            _lacking(
                f"resampling needs a neutral document other than the row; none of "
                f"{len(self._neutral)} is"
            )
        chosen = [doc for doc in others if len(doc) >= length] or others
        place = derived_seed(self._seed, "resample", *row) % len(chosen)
        found = list(chosen[place])
        while len(found) < length:
            place = (place + 1) % len(chosen)
            found += chosen[place]
        return found[:length]

    def _patched(
        self,
        rows: Sequence[Sequence[int]],
        ends: Sequence[int],
        donors: Sequence[Sequence[int]] | None,
    ) -> Mapping[tuple[int, Ablation], Replacement]:
        wanted = self._of("patch")
        if not wanted:
            return {}
        if donors is None or len(donors) != len(rows) or not all(len(each) for each in donors):
            raise UserError(
                "a plan patches from donors, and not every row has one",
                where="layer plan",
                remedy="give donors: the token ids of one prompt for each row",
            )
        found: dict[Part, list[Tensor]] = {_part(*each): [] for each in wanted}
        order: list[int] = []
        for chosen in row_batches(
            [len(each) for each in donors], self._tokens_per_pass, self._model
        ):
            batch = [donors[number] for number in chosen]
            seen = written_parts(enter(self._model, padded(self._model, batch)), wanted)
            for part, states in seen.items():
                last = [len(each) - 1 for each in batch]
                found[part].append(states[list(range(len(batch))), last])
            order += chosen
        back = sorted(range(len(order)), key=order.__getitem__)
        places = torch.tensor(list(ends), device=self._model.device)
        return {
            each: Replacement(torch.cat(found[_part(*each)])[back][:, None], places)
            for each in wanted
        }


def _mean_written(
    model: Model,
    documents: Sequence[Sequence[int]],
    parts: Sequence[tuple[int, Ablation]],
    tokens_per_pass: int,
) -> dict[Part, Tensor]:
    """Means [2, width] of what parts write: at first positions, and at all others."""
    sums: dict[Part, Tensor] = {}
    rows = [list(doc) for doc in documents if len(doc) > 1]
    for chosen in row_batches([len(row) for row in rows], tokens_per_pass, model):
        batch = [rows[number] for number in chosen]
        ids = padded(model, batch)
        lengths = torch.tensor([len(row) for row in batch], device=ids.device)
        real = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
        real[:, 0] = False
        for part, states in written_parts(enter(model, ids), parts).items():
            exact = states.double()
            both = torch.stack([exact[:, 0].sum(0), exact[real].sum(0)])
            sums[part] = both + sums.get(part, torch.zeros_like(both))
    counts = torch.tensor([len(rows), sum(len(row) - 1 for row in rows)], dtype=torch.float64)
    return {
        part: (total / counts.to(total.device)[:, None]).to(model.dtype)
        for part, total in sums.items()
    }


def _lacking(problem: str) -> None:
    raise UserError(
        problem, where="layer plan", remedy="give more or longer neutral documents, or no ablation"
    )
