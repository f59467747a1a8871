"""Gates against bare hooks: single sites patched by the engine, and by code that shares nothing
with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.gate_report import GateRow, no_route
from interpflow.engine.model import Model, Patch
from interpflow.engine.sites import (
    ATTENTION_COMPONENTS,
    KEY_VALUE_COMPONENTS,
    Site,
    all_sites,
)
from interpflow.engine.sweeps.plain_attention import (
    EAGER_UNITS,
    PROJECTED_COMPONENTS,
    NoIndependentRoute,
    plain_pattern,
    projection_written,
)
from interpflow.engine.sweeps.plain_hooks import PLAIN_COMPONENTS, bare_logits, plain_patched_logits

# Sites of each component that are compared with bare hooks and whose patch moves the logits; and
# how many are tried to find them.
N_PLAIN_SITES, MAX_PLAIN_SITES = 4, 12

Compare = Callable[[Site, list[int], int], tuple[Tensor, Tensor]]


def plain_rows(
    model: Model, prompts: list[list[int]], tolerance: float, scale: float, seed: int
) -> list[GateRow]:
    """One row or two per component that the model has.

    prompts: token ids. tolerance: of the largest difference of logits, relative to `scale`.
    """
    check = _PlainCheck(model, prompts, tolerance, scale, seed)
    components = [c for c in model.available_components if c != "embed"]
    return [row for component in components for row in check.rows(component)]


class _PlainCheck:
    def __init__(
        self, model: Model, prompts: list[list[int]], tolerance: float, scale: float, seed: int
    ) -> None:
        self.model, self.prompts = model, prompts
        self.tolerance, self.scale = tolerance, scale
        self._bare: dict[tuple[int, ...], Tensor] = {}
        self._weights_miss = 0.0
        self.generator = np.random.default_rng(np.random.SeedSequence([seed, 0x91A1]))

    def rows(self, component: str) -> list[GateRow]:
        name = f"plain_hooks[{component}]"
        names = [name, "eager_weights[pattern]"] if component == "pattern" else [name]
        try:
            if component == "pattern":
                self._weights_miss = 0.0
                row = self._row(name, component, self._pattern, "rows of attention mixed by hand")
                return [row, self._weights_row(names[1])]
            if component in PROJECTED_COMPONENTS:
                detail = "what is written to a head's projection, patched as the engine reads it"
                return [self._row(name, component, self._projected, detail)]
            if component in PLAIN_COMPONENTS:
                detail = "single sites patched as by bare hooks"
                return [self._row(name, component, self._state, detail)]
        except NoIndependentRoute as error:
            return [no_route(each, self.tolerance, str(error)) for each in names]
        return [no_route(name, self.tolerance, "no module takes in or gives out this state")]

    def _row(self, name: str, component: str, compare: Compare, detail: str) -> GateRow:
        """Compare until enough of the writes moved the logits by more than what is tolerated: the
        others would pass with the patch left out."""
        worst, n_moved = 0.0, 0
        for site, ids, position in self._drawn(component):
            found, expected = compare(site, ids, position)
            worst = max(worst, self._gap(found, expected))
            n_moved += self._gap(expected, self._unpatched(ids)) > self.tolerance
            if n_moved == N_PLAIN_SITES:
                break
        if n_moved == 0 and worst <= self.tolerance:
            return no_route(name, self.tolerance, "no write by bare hooks moved the logits enough")
        detail = f"{detail}; {n_moved} writes moved the logits"
        return GateRow(name, worst <= self.tolerance, worst, self.tolerance, detail)

    def _drawn(self, component: str) -> Iterator[tuple[Site, list[int], int]]:
        """Sites in random order, and a prompt and a position for each."""
        sites = all_sites(self.model, [component])
        draw = self.generator
        for index in draw.permutation(len(sites))[:MAX_PLAIN_SITES]:
            site, ids = sites[int(index)], self.prompts[int(draw.integers(len(self.prompts)))]
            # The first token has nothing to choose among; of the last block only what happens at
            # the last token, or is read there, reaches the logits.
            first = min(1, len(ids) - 1) if component in ATTENTION_COMPONENTS else 0
            position = int(draw.integers(first, len(ids)))
            if site.layer == self.model.n_layers - 1 and component not in KEY_VALUE_COMPONENTS:
                position = len(ids) - 1
            yield site, ids, position

    def _state(self, site: Site, ids: list[int], position: int) -> tuple[Tensor, Tensor]:
        state = self.model.capture([ids], [site])[site][0, position]
        value = self._random_like(state)
        expected = plain_patched_logits(self.model, ids, site, position, value)
        return self._patched(site, ids, position, value), expected

    def _projected(self, site: Site, ids: list[int], position: int) -> tuple[Tensor, Tensor]:
        """Attention may rotate or normalise what its projections give: what it makes of it at the
        patched position is read by the engine; everywhere else it must have stayed what it was."""
        whole, head = Site(site.component, site.layer), site.head
        assert head is not None
        clean = self.model.capture([ids], [whole])[whole][0]
        width = clean.shape[-1] // len(all_sites(self.model, [site.component], [0]))
        with projection_written(self.model, ids, site, position, self._direction(width)):
            expected = bare_logits(self.model, ids)
            state = self.model.capture([ids], [whole])[whole][0]
        change = (state - clean).abs().unflatten(-1, (-1, width)).amax(dim=-1)
        here = change[position].clone()
        change[position] = 0.0
        small = self.tolerance * float(clean.abs().max())
        if float(change.max()) > small or float(here[head]) <= small:
            return torch.full_like(expected, float("nan")), expected
        if int(here.count_nonzero()) == 1:
            value = state[position, head * width : (head + 1) * width]
            return self._patched(site, ids, position, value), expected
        # A norm over all heads (OLMo-2) moves the others too.
        return self._patched(whole, ids, position, state[position]), expected

    def _pattern(self, site: Site, ids: list[int], position: int) -> tuple[Tensor, Tensor]:
        state = self.model.capture([ids], [site])[site][0, position]
        row = self._random_like(state)
        expected, weights = plain_pattern(self.model, ids, site, position, row)
        miss = float((weights - state.to(weights)).abs().max())
        self._weights_miss = max(self._weights_miss, miss)
        return self._patched(site, ids, position, row), expected

    def _weights_row(self, name: str) -> GateRow:
        miss = self._weights_miss
        limit = max(self.tolerance, EAGER_UNITS * torch.finfo(torch.float32).eps)
        detail = "largest difference of patterns from the weights of the model's eager attention"
        return GateRow(name, miss <= limit, miss, limit, detail)

    def _unpatched(self, ids: list[int]) -> Tensor:
        key = tuple(ids)
        if key not in self._bare:
            self._bare[key] = bare_logits(self.model, ids)
        return self._bare[key]

    def _patched(self, site: Site, ids: list[int], position: int, value: Tensor) -> Tensor:
        values = value.new_zeros(1, len(ids), *value.shape)
        values[0, position] = value
        return self.model.patch([ids], [Patch(site, [[position]], values=values)])[0]

    def _random_like(self, state: Tensor) -> Tensor:
        """A random direction of the state's own length; at least 1, so that zeros move too."""
        length = state.double().norm().clamp(min=1.0)
        return (self._direction(len(state)).to(length.device) * length).to(state)

    def _direction(self, width: int) -> Tensor:
        drawn = torch.from_numpy(self.generator.standard_normal(width))
        return drawn / drawn.norm()

    def _gap(self, found: Tensor, expected: Tensor) -> float:
        gap = (found - expected).abs().max()
        return float(gap) / self.scale if bool(gap.isfinite()) else float("inf")
