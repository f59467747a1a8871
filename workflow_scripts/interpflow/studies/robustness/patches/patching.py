"""Sweeps over damaged pairs: which states are replaced at which tokens, and the rows they give."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from interpflow.engine import (
    Audit,
    GateRow,
    Model,
    Site,
    SweepResult,
    combine_metrics,
    kl_metric,
    sweep_sites,
)
from interpflow.engine.metrics import Metric, logit_diff_metric
from interpflow.studies.robustness.patches.pairs import DamagedPair
from interpflow.tables.schemas import table_schema

logger = logging.getLogger("robustness.mediation")

METRICS = ("logit_difference", "kl", "margin")
AUDITED_SHARE = 0.05  # of all sites, how many are run again by whole passes
RANDOM = "random"  # the control donor: as far, in a random direction


def places_of(
    pairs: Sequence[DamagedPair], slots: Sequence[str], clean: bool
) -> list[list[list[int] | None]]:
    """Per pair and slot the positions of the patched run that are replaced together."""
    return [[found[slot] for slot in slots] for found in (p.slots(clean=clean) for p in pairs)]


def contrast_metric(pairs: Sequence[DamagedPair]) -> Metric:
    """`logit_difference`: the clean answer's next token minus the perturbed answer's. A large value
    is always the clean run's answer, whichever run is patched."""
    return logit_diff_metric(
        [pair.clean_token for pair in pairs],
        [pair.perturbed_token for pair in pairs],
        "logit_difference",
    )


def margin_metric(tokens: Sequence[int]) -> Metric:
    """`margin`: logit of each pair's token minus the largest of all others; above 0 it wins."""
    wanted = torch.tensor(list(tokens), dtype=torch.int64)

    def metric(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        at = wanted[pair_index.cpu()].to(logits.device)[:, None]
        z = logits.double()
        others = z.scatter(1, at, float("-inf")).amax(dim=-1)
        return {"margin": z.gather(1, at)[:, 0] - others}

    return metric


def sweep(
    patching: Patching,
    pairs: Sequence[DamagedPair],
    sites: Sequence[Site],
    places: Sequence[Sequence[list[int] | None]],
    clean: bool,
    donor: str,
    *,
    aligned: bool = True,
    asked: np.ndarray | None = None,
) -> SweepResult:
    """Patch the clean run (noising) or the perturbed run (denoising) of every pair.

    places: see `places_of`; asked: bool [site, slot], None for all of them.
    """
    model = patching.model
    bases = [list((pair.clean if clean else pair.perturbed).ids) for pair in pairs]
    donors = [list((pair.perturbed if clean else pair.clean).ids) for pair in pairs]
    logits = model.last_logits(donors, batch_tokens=patching.tokens_per_batch)
    result = sweep_sites(
        model,
        bases,
        donors,
        sites,
        places,
        combine_metrics(
            contrast_metric(pairs),
            kl_metric(logits.log_softmax(dim=-1)),
            margin_metric([pair.clean_token for pair in pairs]),
        ),
        batch_tokens=patching.tokens_per_batch,
        donor="activation" if donor == "real" else "random_norm_matched",
        seed=patching.seed,
        donor_positions=[pair.donor_table(clean=clean) for pair in pairs] if aligned else None,
        asked=asked,
        audit=AUDITED_SHARE,
    )
    if result.audit is not None:
        patching.audits.append(result.audit)
    logger.info(
        "%d pairs, %s, %s donor: %d sites x %d places, %d patched rows",
        len(pairs), "noise" if clean else "denoise", donor, len(sites), len(places[0]),
        result.n_rows_run,
    )  # fmt: skip
    return result


def effect_table(
    result: SweepResult,
    pairs: Sequence[DamagedPair],
    slots: Sequence[str],
    clean: bool,
    donor: str,
) -> pa.Table:
    """Long rows [pair × site × slot], places that a pair does not have, or that were not asked
    for, left out."""
    shape = result.ran.shape
    pair, site, slot = (index.ravel() for index in np.indices(shape).astype(np.int32))
    kept = (~result.empty[:, None, :] & result.asked[None]).ravel()
    pair, site, slot = pair[kept], site[kept], slot[kept]

    def of_pair(values: Sequence[Any]) -> np.ndarray:
        return np.array(list(values))[pair]

    embedded = [found.component == "embed" for found in result.sites]
    columns: dict[str, Any] = {
        "pair_id": of_pair([found.pair_id for found in pairs]),
        **{key: of_pair([found.row[key] for found in pairs])
           for key in ("family_id", "split", "operator")},
        "alignment": of_pair([found.alignment for found in pairs]),
        "direction": np.full(len(pair), "noise" if clean else "denoise"),
        "donor": np.full(len(pair), donor),
        "component": np.array([found.component for found in result.sites])[site],
        "layer": np.array([-1 if e else s.layer for e, s in zip(embedded, result.sites)])[site],
        "head": np.array([-1 if s.head is None else s.head for s in result.sites])[site],
        "slot": np.array(list(slots))[slot],
        "ran": result.ran.ravel()[kept],
    }  # fmt: skip
    for metric in METRICS:
        columns[metric] = result.values[metric].ravel()[kept]
        columns[f"base_{metric}"] = result.base[metric][pair]
        columns[f"donor_{metric}"] = result.donor[metric][pair]
    schema = table_schema("robustness_pair_effects")
    return pa.table({each.name: pa.array(columns[each.name], type=each.type) for each in schema})


@dataclass(frozen=True)
class Patching:
    """What all sweeps of one model share."""

    model: Model
    pairs: Sequence[DamagedPair]
    tokens_per_batch: int
    seed: int
    audits: list[Audit] = field(default_factory=list)
    gates: list[GateRow] = field(default_factory=list)
