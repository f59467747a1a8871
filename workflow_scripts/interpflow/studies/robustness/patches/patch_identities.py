"""Proof that patches of damaged pairs reach the model, and the tokens they are meant for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interpflow.engine import GateRow, Site, SweepResult, run_gates
from interpflow.engine.sweeps.audit import tolerance_of
from interpflow.studies.robustness.patches.pairs import EXACT
from interpflow.studies.robustness.patches.patching import Patching, contrast_metric


def prove_interventions(patching: Patching) -> None:
    """The engine's gates. They compare runs position by position, so of pairs that differ in
    length they are given the last tokens of both: real prompts, if not whole ones."""
    base, donor = [], []
    for pair in patching.pairs:
        length = min(len(pair.perturbed.ids), len(pair.clean.ids))
        base.append(list(pair.perturbed.ids[-length:]))
        donor.append(list(pair.clean.ids[-length:]))
    metric = contrast_metric(patching.pairs)
    report = run_gates(patching.model, base, donor, metric, seed=patching.seed)
    report.require()
    patching.gates.extend(report.rows)


def check_identities(
    patching: Patching, result: SweepResult, slots: Sequence[str], clean: bool
) -> None:
    """What must hold of aligned patches whatever the model: the donor's last state at the answer
    gives the donor's logits, and a state that nothing reads any more changes nothing.

    Limits are relative to the largest logit, as rounding is. RuntimeError when one fails.
    """
    where = "noise" if clean else "denoise"
    embed, last = Site("embed", 0), Site("resid_post", patching.model.n_layers - 1)
    at = {site: i for i, site in enumerate(result.sites)}
    values, donor = result.values["logit_difference"], result.donor["logit_difference"]
    scale = float(np.abs(np.stack([result.base["logit_difference"], donor])).max())
    scale = max(scale, result.audit.logit_scale if result.audit else 0.0)
    limit = max(tolerance_of(patching.model.dtype), 1e-6)
    swapped = np.abs(values[:, at[last], slots.index("answer")] - donor)
    rows = [_identity(f"answer_swap[{where}]", swapped, scale, limit,
                      "the donor's last state at the answer gives the donor's logits")]  # fmt: skip
    edited = result.effect("logit_difference")[:, at[last], slots.index("edited")]
    rows.append(_identity(f"unread_state[{where}]", np.abs(edited), scale, 0.0,
                          "edited words patched after the last layer change nothing"))  # fmt: skip
    exact = np.array([pair.alignment == EXACT for pair in patching.pairs])
    if exact.any():
        whole = np.abs(values[:, at[embed], slots.index("all")] - donor)
        rows.append(_identity(f"embedding_swap[{where}]", whole[exact], scale, limit,
                              "all embeddings of a pair of equal length swapped"))  # fmt: skip
    patching.gates.extend(rows)
    failed = [row for row in rows if not row.passed]
    if failed:
        lines = [f"{row.name}: {row.value:.3g} ({row.detail})" for row in failed]
        raise RuntimeError("interventions are not proven to work:\n  " + "\n  ".join(lines))


def _identity(name: str, gaps: np.ndarray, scale: float, limit: float, detail: str) -> GateRow:
    found = gaps[np.isfinite(gaps)]
    value = float(found.max()) / max(scale, 1e-30) if len(found) else 0.0
    return GateRow(name, value <= limit, value, limit, detail)
