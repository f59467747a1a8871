"""Interventions on decoder-only models: capture, patch, sweep, and the gates that prove them."""

from interpflow.engine.batches import TokenBatch
from interpflow.engine.gates import GateReport, GateRow, run_gates
from interpflow.engine.metrics import answer_contrast_metric, combine_metrics, kl_metric
from interpflow.engine.model import Model, Patch, load
from interpflow.engine.pair_sweep import PairSweep
from interpflow.engine.pairs import Pair
from interpflow.engine.site_sweep import sweep_sites
from interpflow.engine.sites import COMPONENTS, Site, all_sites
from interpflow.engine.sweep_result import Audit, SweepResult
from interpflow.engine.sweeping import sweep

__all__ = [
    "COMPONENTS",
    "Audit",
    "GateReport",
    "GateRow",
    "Model",
    "Pair",
    "PairSweep",
    "Patch",
    "Site",
    "SweepResult",
    "TokenBatch",
    "all_sites",
    "answer_contrast_metric",
    "combine_metrics",
    "kl_metric",
    "load",
    "run_gates",
    "sweep",
    "sweep_sites",
]
