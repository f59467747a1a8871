"""Attention patterns patched between prompts of unequal length: the answer's query looks where it
would have looked, key by aligned key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from interpflow.engine import GateRow, Model, Patch, Site, combine_metrics, kl_metric
from interpflow.engine.metrics import Metric
from interpflow.engine.sweeps.audit import tolerance_of
from interpflow.studies.robustness.patches.pairs import DamagedPair
from interpflow.studies.robustness.patches.patching import Patching, contrast_metric, margin_metric
from interpflow.tables.schemas import table_schema

CHECKED_PAIRS = 8
VALUE_BYTES = 128 * 2**20  # of the patterns given to one pass, [row, query, head, key]
MIN_WEIGHT = 1e-6  # of a donor's pattern that has a counterpart; less is no pattern


def pattern_table(patching: Patching, clean: bool) -> pa.Table:
    """Rows of `robustness_pair_effects`: component pattern, all heads of a layer (head −1), at the
    answer's query, of every pair."""
    model, pairs = patching.model, patching.pairs
    bases, donors = ids_of(pairs, clean=clean), ids_of(pairs, clean=not clean)
    given = model.last_logits(donors, batch_tokens=patching.tokens_per_batch)
    metric = combine_metrics(
        contrast_metric(pairs),
        kl_metric(given.log_softmax(dim=-1)),
        margin_metric([pair.clean_token for pair in pairs]),
    )
    every = torch.arange(len(pairs), device=given.device)
    alone = metric(model.last_logits(bases, batch_tokens=patching.tokens_per_batch), every)
    donor_values = metric(given, every)
    tables = [pair.donor_table(clean=not clean) for pair in pairs]
    values = patched_patterns(
        model, bases, donors, tables, metric, batch_tokens=patching.tokens_per_batch
    )
    # A pair of equal prompts has nothing to patch, and no rounding to take for an effect.
    same = [base == donor for base, donor in zip(bases, donors)]
    for name, found in values.items():
        found[same] = alone[name].double().cpu().numpy()[same][:, None]
    rows = [
        {
            "pair_id": pair.pair_id,
            **{key: pair.row[key] for key in ("family_id", "split", "operator")},
            "alignment": pair.alignment,
            "direction": "noise" if clean else "denoise",
            "donor": "real",
            "component": "pattern",
            "layer": layer,
            "head": -1,
            "slot": "answer",
            "ran": not same[i],
            **{name: float(found[i, layer]) for name, found in values.items()},
            **{f"base_{name}": float(found[i]) for name, found in alone.items()},
            **{f"donor_{name}": float(found[i]) for name, found in donor_values.items()},
        }
        for i, pair in enumerate(pairs)
        for layer in range(model.n_layers)
        if np.isfinite(values["logit_difference"][i, layer])
    ]
    return pa.Table.from_pylist(rows, schema=table_schema("robustness_pair_effects"))


def check_own_patterns(patching: Patching) -> None:
    """Gate: a run that is given its own patterns, token for token, keeps its logits; and one that
    looks at its first token alone does not. RuntimeError when one fails."""
    pairs, model = patching.pairs[:CHECKED_PAIRS], patching.model
    bases = ids_of(pairs, clean=False)
    every = torch.arange(len(pairs), device=model.device)
    metric = contrast_metric(pairs)
    logits = model.last_logits(bases, batch_tokens=patching.tokens_per_batch)
    alone = metric(logits, every)["logit_difference"].double().cpu().numpy()
    scale = float(logits.abs().max())

    def moved(tables: list[list[int]]) -> np.ndarray:
        found = patched_patterns(
            model, bases, bases, tables, metric, batch_tokens=patching.tokens_per_batch
        )["logit_difference"]
        return np.abs(found - alone[:, None]) / scale

    limit = max(tolerance_of(model.dtype), 1e-6)
    same = float(moved([list(range(len(ids))) for ids in bases]).max())
    first = float(np.nanmax(moved([[0] * len(ids) for ids in bases])))
    rows = [
        GateRow("own_pattern", same <= limit, same, limit, "own weights, key by key"),
        GateRow("first_token_pattern", first > limit, first, limit, "all weight on the first key"),
    ]
    patching.gates.extend(rows)
    failed = [row for row in rows if not row.passed]
    if failed:
        lines = [f"{row.name}: {row.value:.3g} ({row.detail})" for row in failed]
        raise RuntimeError("interventions are not proven to work:\n  " + "\n  ".join(lines))


def ids_of(pairs: Sequence[DamagedPair], *, clean: bool) -> list[list[int]]:
    """Token ids of the clean or the perturbed runs."""
    return [list((pair.clean if clean else pair.perturbed).ids) for pair in pairs]


def patched_patterns(
    model: Model,
    bases: Sequence[Sequence[int]],
    donors: Sequence[Sequence[int]],
    tables: Sequence[Sequence[int]],
    metric: Metric,
    *,
    batch_tokens: int,
) -> dict[str, np.ndarray]:
    """Metric values float64 [pair, layer] of the base runs, all heads of one layer given the
    donor's pattern at the last token.

    tables[pair][k]: the base's position that stands for the donor's position k, −1 for none. The
    weight of a key goes to the key that stands for it; the weights are then scaled to sum to 1. NaN
    where nothing stands for any of them.
    """
    sites = [Site("pattern", layer) for layer in range(model.n_layers)]
    weights: list[list[Tensor]] = [[] for _ in bases]
    for rows in _batches(donors, batch_tokens, model.n_heads):
        last = len(donors[rows[0]]) - 1
        states = model.capture([list(donors[row]) for row in rows], sites, positions=[last])
        for k, row in enumerate(rows):
            weights[row] = [
                aligned_pattern(states[site][k, 0], tables[row], len(bases[row])) for site in sites
            ]
    values: dict[str, np.ndarray] = {}
    for rows in _batches(bases, batch_tokens, model.n_heads):
        length = len(bases[rows[0]])
        for layer, site in enumerate(sites):
            given = torch.full((len(rows), length, model.n_heads, length), float("nan"))
            for k, row in enumerate(rows):
                given[k, -1] = weights[row][layer]
            usable = [k for k in range(len(rows)) if bool(given[k, -1].isfinite().all())]
            if not usable:
                continue
            chosen = [rows[k] for k in usable]
            patch = Patch(site, positions=[length - 1], values=given[usable])
            logits = model.patch([list(bases[row]) for row in chosen], [patch])
            found = metric(logits, torch.tensor(chosen, device=logits.device))
            for name, numbers in found.items():
                table = values.setdefault(name, np.full((len(bases), len(sites)), np.nan))
                table[chosen, layer] = numbers.double().cpu().numpy()
    return values


def aligned_pattern(pattern: Tensor, table: Sequence[int], n_keys: int) -> Tensor:
    """A query's weights [head, key of the donor] on `n_keys` keys: those of key k on key table[k],
    dropped where that is −1, scaled to sum to 1; NaN for a head that keeps none."""
    kept = torch.tensor([place >= 0 for place in table], device=pattern.device)
    places = torch.tensor([place for place in table if place >= 0], device=pattern.device)
    moved = pattern.new_zeros(len(pattern), n_keys, dtype=torch.float64)
    moved.index_add_(1, places, pattern[:, : len(table)][:, kept].double())
    total = moved.sum(dim=1, keepdim=True)
    moved = moved / total.where(total > MIN_WEIGHT, torch.nan)
    return moved.float().cpu()


def _batches(
    prompts: Sequence[Sequence[int]], batch_tokens: int, n_heads: int
) -> Iterator[list[int]]:
    """Prompts of equal length together, so that no row is padded."""
    by_length: dict[int, list[int]] = {}
    for row, ids in enumerate(prompts):
        by_length.setdefault(len(ids), []).append(row)
    for length, rows in sorted(by_length.items()):
        step = max(1, min(batch_tokens // length, VALUE_BYTES // (4 * n_heads * length**2)))
        yield from (rows[at : at + step] for at in range(0, len(rows), step))
