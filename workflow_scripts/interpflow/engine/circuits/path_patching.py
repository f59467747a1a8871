"""Path patching: exact effects of edges between a sender and a receiver, alone or jointly.

Direction and sign: the base is what is patched, the donor where contributions come from (denoising:
base corrupted, donor clean); an effect is metric(patched) − metric(base). Of a patched edge the
receiver reads (its input in this pass) − (the sender's contribution in this pass) + (the sender's
contribution in the donor run): for one edge, base input + (donor − base contribution). Only the
receiver sees that; its own output changes, and everything after it is recomputed. Sources: Wang et
al. (2022) and Goldowsky-Dill et al. (2023), direct paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.circuits.edge_passes import Replacement, run_edge_sets
from interpflow.engine.circuits.edges import Edge
from interpflow.engine.circuits.gradients import State, metric_values, tapped_pass
from interpflow.engine.circuits.pair_batches import PairBatch, Prompts, pair_batches
from interpflow.engine.circuits.patch_sets import REPLACEMENTS, PatchedSets
from interpflow.engine.circuits.residual_graph import ResidualGraph, residual_graph
from interpflow.engine.circuits.sender_states import SENDER_BYTES, sender_contributions, sender_taps
from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model, full_precision
from interpflow.errors import UserError

EDGE_BATCH_TOKENS = 1024
# Masks of edges [set, receiver, sender] that are held at a time.
MASK_BYTES = 256 * 2**20


def patch_edges(
    model: Model,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    sets: Sequence[Collection[Edge]],
    *,
    positions: Sequence[Collection[int]] | None = None,
    name: str | None = None,
    replacement: str = "donor",
    batch_tokens: int = EDGE_BATCH_TOKENS,
) -> PatchedSets:
    """Metric of every base run with all edges of a set patched at once.

    positions: per pair, where senders are exchanged (everywhere if None). replacement: see
    `patch_sets`; a mean is one vector per sender. name: which of the metric's values.
    Raises UserError for edges that the model does not have, for pairs of unequal lengths, and when
    the model's residual stream could not be taken apart.
    """
    graph = residual_graph(model)
    size = max(1, MASK_BYTES // graph.edges.exists.size)
    parts = [
        patch_edge_masks(
            graph, base_ids, donor_ids, metric,
            np.stack([graph.edges.mask(edges) for edges in sets[start : start + size]]),
            positions=positions, name=name, replacement=replacement, batch_tokens=batch_tokens,
        )
        for start in range(0, len(sets), size)
    ]  # fmt: skip
    if not parts:
        raise UserError("no edges to patch", remedy="give at least one set of edges")
    return PatchedSets(np.concatenate([p.values for p in parts]), parts[0].base, parts[0].donor)


def patch_edge_masks(
    graph: ResidualGraph,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    masks: np.ndarray,
    *,
    positions: Sequence[Collection[int]] | None = None,
    name: str | None = None,
    replacement: str = "donor",
    batch_tokens: int = EDGE_BATCH_TOKENS,
) -> PatchedSets:
    """`patch_edges` for sets given as masks, bool [set, receiver, sender]."""
    if replacement not in REPLACEMENTS:
        raise UserError(
            f"there is no replacement {replacement!r}", remedy=f"use {', '.join(REPLACEMENTS)}"
        )
    if positions is not None and len(positions) != len(base_ids):
        raise UserError(f"{len(positions)} lists of positions for {len(base_ids)} pairs")
    model = graph.model
    means = _means(graph, donor_ids, batch_tokens) if replacement == "mean" else None
    values = np.full((len(masks), len(base_ids)), np.nan)
    ends = {end: np.full(len(base_ids), np.nan) for end in ("base", "donor")}
    densest = int(masks.any(axis=1).sum(axis=1).max(initial=1))
    tokens = min(batch_tokens, _places_that_fit(graph, densest))
    for batch in pair_batches(base_ids, donor_ids, batch_tokens=tokens, device=model.device):
        columns = list(batch.pairs)
        base, donor = (
            tapped_pass(model, ids, taps)
            for ids, taps in ((batch.base, _base_taps(model)), (batch.donor, sender_taps(model)))
        )
        for end, run in (("base", base), ("donor", donor)):
            found = metric_values(metric, name, run.logits, batch.pairs)
            ends[end][columns] = found.double().cpu().numpy()
        given = _replacement(graph, replacement, donor.states, means)
        places = _places(batch, positions)
        for rows in _chunks(graph, masks, batch, batch_tokens):
            logits = run_edge_sets(graph, base.states, given, masks[rows], places)
            found = metric_values(
                metric, name, full_precision(logits.flatten(0, 1)), batch.pairs * len(rows)
            )
            values[np.ix_(rows, columns)] = found.double().cpu().numpy().reshape(len(rows), -1)
    return PatchedSets(values, ends["base"], ends["donor"])


def _base_taps(model: Model) -> list[State]:
    before = [("resid_pre", layer) for layer in range(model.n_layers)]
    return [*sender_taps(model), *before, ("resid_post", model.n_layers - 1)]


def _replacement(
    graph: ResidualGraph, kind: str, donor: dict[State, Tensor], means: Tensor | None
) -> Replacement:
    """What senders contribute instead, all of one layer and kind at a time."""
    like = donor["embed", 0]

    def given(senders: Sequence[int]) -> Tensor:
        if kind == "zero":
            return like.new_zeros(len(senders), *like.shape)
        if means is not None:
            return means[list(senders)].to(like)[:, None, None].expand(-1, *like.shape)
        layer, inside = divmod(senders[0] - 1, graph.edges.width)
        if senders[0] == 0:
            return like[None]
        if inside == graph.edges.n_heads:
            return donor["mlp_out", layer][None]
        heads = [sender - graph.edges.head_senders(layer).start for sender in senders]
        return graph.contributions(layer, donor["head_out", layer], heads)

    return given


@torch.no_grad()
def _means(graph: ResidualGraph, prompts: Prompts, batch_tokens: int) -> Tensor:
    """Mean contribution of each sender over all positions of all prompts, [sender, d_model]."""
    model, n_senders = graph.model, len(graph.edges.senders)
    total = torch.zeros(n_senders, model.d_model, dtype=torch.float64, device=model.device)
    tokens = min(batch_tokens, _places_that_fit(graph, n_senders))
    for batch in pair_batches(prompts, prompts, batch_tokens=tokens, device=model.device):
        states = tapped_pass(model, batch.base, sender_taps(model)).states
        found = sender_contributions(graph, states, n_senders, slice(0, batch.length))
        total += found.double().sum(dim=(1, 2))
    return total / sum(map(len, prompts))


def _places(batch: PairBatch, positions: Sequence[Collection[int]] | None) -> Tensor | None:
    if positions is None:
        return None
    mask = torch.zeros(batch.base.shape, dtype=torch.bool)
    for row, pair in enumerate(batch.pairs):
        for place in positions[pair]:
            if not 0 <= place < batch.length:
                raise UserError(
                    f"position {place} lies outside {batch.length} tokens", where=f"pair {pair}"
                )
            mask[row, place] = True
    return mask.to(batch.base.device)


def _places_that_fit(graph: ResidualGraph, n_senders: int) -> int:
    """Token places of which contributions of so many senders fit in SENDER_BYTES."""
    size = graph.model.d_model * graph.model.dtype.itemsize
    return max(1, SENDER_BYTES // (max(1, n_senders) * size))


def _chunks(
    graph: ResidualGraph, masks: np.ndarray, batch: PairBatch, batch_tokens: int
) -> Iterator[list[int]]:
    """Sets that run together: those whose receivers begin late skip the blocks before, and those of
    the same senders share what is kept."""
    first_receiver = masks.any(axis=2).argmax(axis=1)
    first_layer = [graph.edges.receivers[r].layer + (graph.edges.receivers[r].kind == "logits")
                   * graph.edges.n_layers for r in first_receiver]  # fmt: skip
    senders: np.ndarray = np.any(masks, axis=1)
    order = np.lexsort((senders.argmax(axis=1), first_layer))
    rows: list[int] = []
    together = np.zeros(len(graph.edges.senders), dtype=bool)
    for number in order:
        tokens = (len(rows) + 1) * batch.base.numel()
        fitting = _places_that_fit(graph, int((together | senders[number]).sum()))
        if rows and tokens > min(batch_tokens, fitting):
            yield rows
            rows, together = [], np.zeros_like(together)
        rows.append(int(number))
        together |= senders[number]
    if rows:
        yield rows
