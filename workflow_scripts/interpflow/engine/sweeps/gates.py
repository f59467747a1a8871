"""Gates: proof, on the study's own pairs, that interventions reach the model and do what they say.

A patch that never arrives gives a clean-looking table of zeros. Before any effect is written these
checks must pass; each compares two computations that agree only if the patch really happened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.batches import TokenBatch
from interpflow.engine.gate_report import GateReport, GateRow
from interpflow.engine.metrics import Metric, combine_metrics
from interpflow.engine.model import Model, Patch
from interpflow.engine.sites import ATTENTION_COMPONENTS, Site, all_sites
from interpflow.engine.sweeps.audit import tolerance_of
from interpflow.engine.sweeps.plain_gates import plain_rows
from interpflow.engine.sweeps.result import SweepResult
from interpflow.engine.sweeps.site_sweep import sweep_sites

# Random directions the logits are read along when fast and slow sweeps are compared.
N_PROJECTIONS = 4
# A change of the logits, relative to the largest, that no rounding explains in float32.
SMALLEST_MOVE = 1e-5


def run_gates(
    model: Model,
    base_ids: Sequence[Sequence[int]],
    donor_ids: Sequence[Sequence[int]],
    metric: Metric,
    *,
    tolerance: float | None = None,
    max_pairs: int = 4,
    seed: int = 0,
) -> GateReport:
    """Run every gate on up to `max_pairs` pairs spread over the list.

    tolerance: largest difference allowed, relative to the largest logit (metrics: to the largest
    base or donor value); by default 1e-5, or for narrower types than float32 a tenth.
    Pairs must have equal lengths within a pair.
    """
    tolerance = tolerance_of(model.dtype) if tolerance is None else tolerance
    differing = [i for i in range(len(base_ids)) if list(base_ids[i]) != list(donor_ids[i])]
    picked = np.linspace(0, len(differing) - 1, min(max_pairs, len(differing)))
    pairs = [differing[round(float(i))] for i in picked]
    if not pairs:
        row = GateRow("pairs_differ", False, 0.0, tolerance, "no pair has two different prompts")
        return GateReport((row,), {})
    check = _Check(
        model,
        [list(base_ids[i]) for i in pairs],
        [list(donor_ids[i]) for i in pairs],
        tolerance,
        seed,
    )
    rows = [check.pairs_differ(), *check.self_patches()]
    rows += plain_rows(model, check.base, tolerance, check.scale, seed)
    rows += [check.full_swap(), check.causality()]
    rows += [*check.random_moves(), check.row_alone()]
    local = renumbered(metric, pairs)
    fast_rows, noise = check.fast_equals_slow(local)
    for name, found in check.metric_noise(local).items():
        noise[name] = max(noise.get(name, 0.0), found)
    return GateReport((*rows, *fast_rows), noise)


def renumbered(metric: Metric, pairs: Sequence[int]) -> Metric:
    """The metric, called with numbers of the sample instead of numbers of the whole list."""
    original = torch.tensor(list(pairs), dtype=torch.int64)

    def renumbered(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        return metric(logits, original.to(pair_index.device)[pair_index])

    return renumbered


def _projections(vocab_size: int, seed: int) -> Metric:
    """Logits along random unit directions: no patched logit can change unseen by all of them."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(vocab_size, N_PROJECTIONS, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)

    def metric(logits: Tensor, _pair_index: Tensor) -> dict[str, Tensor]:
        found = logits.double() @ directions.to(logits.device)
        return {f"projection_{k}": found[:, k] for k in range(N_PROJECTIONS)}

    return metric


class _Check:
    """The gates' shared sample: base and donor batches, their logits, the scale of a logit."""

    def __init__(
        self,
        model: Model,
        base: list[list[int]],
        donor: list[list[int]],
        tolerance: float,
        seed: int,
    ) -> None:
        self.model, self.base, self.donor = model, base, donor
        self.tolerance, self.seed = tolerance, seed
        self.batch = TokenBatch.from_ids(base, device=model.device)
        self.donor_batch = TokenBatch.from_ids(donor, device=model.device)
        self.base_logits = model.last_logits(self.batch)
        self.donor_logits = model.last_logits(self.donor_batch)
        self.everywhere = self.batch.attention_mask.bool()
        self.last = torch.zeros_like(self.everywhere)
        self.last[torch.arange(len(base)), self.batch.lengths - 1] = True
        self.components = [c for c in model.available_components if c != "embed"]

    def pairs_differ(self) -> GateRow:
        value = self._worst_row(self.donor_logits, self.base_logits)
        return self._moved("pairs_differ", value, "smallest change of the logits, base to donor")

    def self_patches(self) -> list[GateRow]:
        rows = []
        for component in self.components:
            sites = all_sites(self.model, [component])
            # Read in the same kind of pass as they are written: states inside attention are only
            # to be had where its pattern is computed in full, which rounds otherwise.
            logits, states = self.model.run(self.batch, sites=sites)
            patches = self._patches(component, self.everywhere, states)
            value = self._gap(self.model.patch(self.batch, patches), logits)
            detail = "every state replaced by itself, all layers at once"
            # The residual between attention and MLP is written as a difference, which rounds.
            limit = self.tolerance if component == "resid_mid" else 0.0
            rows.append(GateRow(f"self_patch[{component}]", value <= limit, value, limit, detail))
        return rows

    def full_swap(self) -> GateRow:
        sites = [*all_sites(self.model, ["resid_pre"]), Site("resid_post", self.model.n_layers - 1)]
        states = self.model.capture(self.donor_batch, sites)
        gaps = {}
        for site in sites:
            patch = Patch(site, self.everywhere, states[site])
            gaps[site] = self._gap(self.model.patch(self.batch, [patch]), self.donor_logits)
        worst = max(gaps, key=lambda site: gaps[site])
        detail = f"all positions from the donor give the donor's logits; worst at {worst}"
        return self._still("full_swap", gaps[worst], detail)

    def causality(self) -> GateRow:
        """A patch at one position leaves earlier states alone and changes its own."""
        site, after = Site("resid_pre", 0), Site("resid_post", self.model.n_layers - 1)
        places = [max(1, len(row) // 2) if len(row) > 1 else 0 for row in self.base]
        clean = self.model.capture(self.batch, [site, after])
        patch = Patch(site, [[p] for p in places], self._random_like(clean[site], site))
        _, patched = self.model.run(self.batch, [patch], [after])
        scale = float(torch.nan_to_num(clean[after]).abs().max()) or 1.0
        earlier, own = 0.0, float("inf")
        for row, place in enumerate(places):
            change = (patched[after][row] - clean[after][row]).abs().amax(dim=-1)
            earlier = max([earlier, *change[:place].tolist()])
            own = min(own, float(change[place]))
        reached = own / scale > self.tolerance
        detail = "largest change of a state before the patched position"
        if not reached:
            detail = f"the patch did not change its own position (change {own:.3g})"
        passed = reached and earlier / scale <= self.tolerance
        return GateRow("causality", passed, earlier / scale, self.tolerance, detail)

    def random_moves(self) -> list[GateRow]:
        rows = []
        for component in self.components:
            if component in ("q", "k", "pattern") and max(map(len, self.base)) == 1:
                continue  # a single token's attention has no choice
            states = self._states(component, self.batch)
            noise = {site: self._random_like(state, site) for site, state in states.items()}
            # Attention may look away from the last position: all of them then.
            inside = component in ATTENTION_COMPONENTS
            where = self.everywhere if inside else self.last
            logits = self.model.patch(self.batch, self._patches(component, where, noise))
            value = self._worst_row(logits, self.base_logits)
            which = "all positions'" if inside else "the last position's"
            detail = f"smallest change of the logits when {which} states are random"
            rows.append(self._moved(f"random_donor_moves[{component}]", value, detail))
        return rows

    def row_alone(self) -> GateRow:
        alone = torch.cat([self.model.run([row])[0] for row in self.base])
        value = self._gap(alone, self.base_logits)
        return self._still("row_alone", value, "a row alone gives the same logits as in a batch")

    def metric_noise(self, metric: Metric) -> dict[str, float]:
        """Per metric, the largest difference between passes that differ only in what else is in
        the batch: each row alone, at other places of the batch, and among twice as many rows."""
        n = len(self.base)
        index = torch.arange(n, device=self.base_logits.device)
        together = metric(self.base_logits, index)
        turned = self.model.last_logits(TokenBatch.from_ids(self.base[::-1])).flip(0)
        doubled = self.model.last_logits(TokenBatch.from_ids(self.base * 2))
        alone = torch.cat([self.model.run([row])[0] for row in self.base])
        noise = dict.fromkeys(together, 0.0)
        for logits in (alone, turned, doubled[:n], doubled[n:]):
            for name, values in metric(logits, index).items():
                gap = (torch.as_tensor(values) - torch.as_tensor(together[name])).abs().max()
                noise[name] = max(noise[name], float(gap))
        return noise

    def fast_equals_slow(self, metric: Metric) -> tuple[list[GateRow], dict[str, float]]:
        both = combine_metrics(metric, _projections(self.model.vocab_size, self.seed))
        groups = [self._groups(b, d) for b, d in zip(self.base, self.donor)]
        found: dict[bool, SweepResult] = {}
        for fast in (True, False):
            found[fast] = sweep_sites(
                self.model,
                self.base,
                self.donor,
                self._sweep_sites(),
                groups,
                both,
                fast=fast,
            )
        noise, worst = {}, 0.0
        for name, slow in found[False].values.items():
            gap = float(np.nanmax(np.abs(found[True].values[name] - slow)))
            if name.startswith("projection_"):
                worst = max(worst, gap / self.scale)
            else:
                noise[name] = gap
        detail = f"path {found[True].path}, {found[True].n_rows_no_op} no-op cells not run"
        joint = [self._joint_swap(found[fast]) for fast in (True, False)]
        return [
            self._still("fast_equals_slow", worst, detail),
            self._still(
                "sweep_full_swap",
                max(joint),
                "a sweep over all positions gives the donor's value, fast and slow",
            ),
        ], noise

    def _sweep_sites(self) -> list[Site]:
        layers = sorted({0, self.model.n_layers // 2, self.model.n_layers - 1})
        heads = {0, self.model.n_heads - 1}
        sites = all_sites(self.model, self.components, layers)
        return [site for site in sites if site.head is None or site.head in heads]

    def _groups(self, base: list[int], donor: list[int]) -> list[list[int]]:
        """All positions together; then the first differing, a middle and the last one alone."""
        first = next(i for i in range(len(base)) if base[i] != donor[i])
        middle = (first + len(base) - 1) // 2
        return [list(range(len(base))), [first], [middle], [len(base) - 1]]

    def _joint_swap(self, result: SweepResult) -> float:
        """How far patching all positions of the residual stream is from the donor run."""
        at = [i for i, s in enumerate(result.sites) if s.component in ("resid_pre", "resid_post")]
        gaps = []
        for name in result.values:
            if name.startswith("projection_"):
                gaps.append(np.abs(result.values[name][:, at, 0] - result.donor[name][:, None]))
        return float(np.max(gaps)) / self.scale

    @property
    def scale(self) -> float:
        largest = max(float(z.abs().max()) for z in (self.base_logits, self.donor_logits))
        return largest or 1.0

    def _gap(self, found: Tensor, expected: Tensor) -> float:
        gap = (found - expected).abs().max()
        return float(gap) / self.scale if bool(gap.isfinite()) else float("inf")

    def _worst_row(self, found: Tensor, expected: Tensor) -> float:
        return float((found - expected).abs().amax(dim=-1).min()) / self.scale

    def _still(self, name: str, value: float, detail: str) -> GateRow:
        return GateRow(name, value <= self.tolerance, value, self.tolerance, detail)

    def _moved(self, name: str, value: float, detail: str) -> GateRow:
        detail = f"{detail}; must exceed the tolerance"
        # The same rows in the same batch: what is not moved is not moved by rounding either.
        limit = min(self.tolerance, SMALLEST_MOVE)
        return GateRow(name, value > limit, value, limit, detail)

    def _states(self, component: str, batch: TokenBatch) -> dict[Site, Tensor]:
        return self.model.capture(batch, all_sites(self.model, [component]))

    def _patches(self, component: str, mask: Tensor, states: dict[Site, Tensor]) -> list[Patch]:
        return [Patch(site, mask, states[site]) for site in all_sites(self.model, [component])]

    def _random_like(self, state: Tensor, site: Site) -> Tensor:
        """Random directions of the state's own length; at least 1, so that zeros move too."""
        generator = torch.Generator().manual_seed(self.seed + 1 + site.layer)
        drawn = torch.randn(state.shape, generator=generator, dtype=torch.float64)
        length = torch.nan_to_num(state).double().norm(dim=-1, keepdim=True).clamp(min=1.0)
        drawn = drawn.to(state.device)
        return (drawn / drawn.norm(dim=-1, keepdim=True) * length).to(state.dtype)
