"""How well each lens reads each depth, with intervals over documents, and what blocks change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interpflow.stats.intervals import mean_interval
from interpflow.stats.multiplicity import adjust
from interpflow.stats.paired_contrasts import paired_contrasts
from interpflow.stats.representation import MIN_ROWS, cka_estimate
from interpflow.stats.unpaired import unpaired_difference
from interpflow.studies.layer_surgery.estimate_rows import Analyst, Row
from interpflow.studies.layer_surgery.lenses.held_out_readings import UNIGRAM, DocumentReadings

FloatArray = NDArray[np.float64]

KL, TOP1, GAIN, GAP = "lens_kl", "lens_top1", "lens_gain", "lens_gap"
INFLUENCE, CKA = "block_influence", "depth_cka"
LOGIT, TUNED, BIAS = "logit", "tuned", "bias"


def lens_rows(analyst: Analyst, found: DocumentReadings) -> list[Row]:
    """KL and top-1 agreement of every lens at every depth, and by how much the tuned lens is nearer
    to the model than each other one: paired by document, max-T over depths.

    The unit is the document: its tokens are averaged before.
    """
    rows: list[Row] = []
    level = analyst.settings.level
    for lens, parts in found.means.items():
        for analysis, key, quantity in (
            (KL, "kl", "KL to the model, nats per token"),
            (TOP1, "top1_kept", "share of tokens with the model's top token"),
        ):
            for depth in range(parts[key].shape[1] - 1):
                estimate = mean_interval(
                    parts[key][:, depth], quantity=quantity, level=level, null=float("nan"),
                    is_proportion=key == "top1_kept",
                )  # fmt: skip
                rows.append(analyst.row(analysis, lens, str(depth), estimate))
    if found.unigram:
        estimate = mean_interval(
            found.unigram["kl"], quantity="KL to the model, nats per token", level=level,
            null=float("nan"),
        )  # fmt: skip
        rows.append(analyst.row(KL, UNIGRAM, "all", estimate))
    return rows + gain_rows(analyst, found)


def gain_rows(analyst: Analyst, found: DocumentReadings) -> list[Row]:
    """KL of each other lens minus that of the tuned lens, positive where tuning helps."""
    tuned = found.means[TUNED]["kl"][:, :-1]
    others = {name: found.means[name]["kl"][:, :-1] for name in (LOGIT, BIAS)}
    if found.unigram:
        others[UNIGRAM] = np.repeat(found.unigram["kl"][:, None], tuned.shape[1], axis=1)
    rows: list[Row] = []
    for name, other in others.items():
        factor = f"{name} − {TUNED}"
        estimates = paired_contrasts(
            other - tuned, quantity="KL that the tuned lens saves, nats per token",
            level=analyst.settings.level, n_resamples=analyst.settings.n_permutations,
            seed=analyst.seed_of(GAIN, factor), family=f"{GAIN} {factor}",
        )  # fmt: skip
        rows += [
            analyst.row(GAIN, factor, str(depth), estimate)
            for depth, estimate in enumerate(estimates)
        ]
    return rows


def gap_rows(analyst: Analyst, held_out: FloatArray, training: FloatArray) -> list[Row]:
    """KL of the tuned lens on held-out documents [document, depth] minus that on documents which it
    was trained on, Holm over depths."""
    estimates = [
        unpaired_difference(
            held_out[:, depth], training[:, depth], level=analyst.settings.level,
            quantity="held-out KL − training KL, nats per token",
            n_resamples=analyst.settings.n_permutations, seed=analyst.seed_of(GAP, str(depth)),
        )
        for depth in range(held_out.shape[1] - 1)
    ]  # fmt: skip
    return [
        analyst.row(GAP, TUNED, str(depth), estimate)
        for depth, estimate in enumerate(adjust(estimates, method="holm", family=GAP))
    ]


def block_rows(analyst: Analyst, found: DocumentReadings) -> list[Row]:
    """Influence of each block, and the alignment (debiased CKA) of the states of each depth with
    those of the next and of the last depth, one token of each document."""
    rows: list[Row] = []
    level = analyst.settings.level
    for block in range(found.influence.shape[1]):
        estimate = mean_interval(
            found.influence[:, block], quantity="1 − cosine of states before and after",
            level=level, null=float("nan"),
        )  # fmt: skip
        rows.append(analyst.row(INFLUENCE, "block", str(block), estimate))
    n_depths = found.one_token.shape[1]
    if len(found.documents) < MIN_ROWS:
        return rows
    for factor, pairs in (
        ("next depth", [(depth, depth + 1) for depth in range(n_depths - 1)]),
        ("last depth", [(depth, n_depths - 1) for depth in range(n_depths - 2)]),
    ):
        for one, two in pairs:
            estimate = cka_estimate(
                found.one_token[:, one], found.one_token[:, two], level=level,
                seed=analyst.seed_of(CKA, str(one), str(two)),
            )  # fmt: skip
            rows.append(analyst.row(CKA, factor, f"{one}-{two}", estimate))
    return rows


def verdict(found: DocumentReadings, training: FloatArray) -> dict[str, object]:
    """What the document says: mean KL by depth, whether the tuned lens is nearer to the model than
    the logit lens at every depth but the last, and how far training and held-out text differ."""
    kl = {name: parts["kl"].mean(axis=0) for name, parts in found.means.items()}
    tuned, logit = kl[TUNED][:-1], kl[LOGIT][:-1]
    train = training.mean(axis=0)[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = (tuned - train) / train
    return {
        "kl": {name: values.tolist() for name, values in kl.items()},
        "unigram_kl": float(found.unigram["kl"].mean()) if found.unigram else None,
        "tuned_beats_logit": bool((tuned < logit).all()),
        "depths_where_not": np.flatnonzero(~(tuned < logit)).tolist(),
        "largest_rise_with_depth": _largest_rise(kl[TUNED]),
        "training_kl": train.tolist(),
        "train_test_gap": gap.tolist(),
        "influence": found.influence.mean(axis=0).tolist(),
    }


def _largest_rise(curve: Sequence[float] | FloatArray) -> float:
    """Most that a curve rises from one depth to the next; 0 where it never does."""
    return float(max(0.0, np.diff(np.asarray(curve)).max(initial=0.0)))
