"""Interventions on decoder-only models: capture, patch, sweep, and the gates that prove them."""

from interpflow.engine import alignment
from interpflow.engine.alignment import Alignment
from interpflow.engine.batches import TokenBatch
from interpflow.engine.generation import Continuation, generate_with
from interpflow.engine.interventions import (
    AddDirection,
    Interpolate,
    Intervention,
    MeanAblation,
    Noise,
    Patch,
    ResampleAblation,
    Scale,
    ZeroAblation,
)
from interpflow.engine.loading import load
from interpflow.engine.metrics import answer_contrast_metric, combine_metrics, kl_metric
from interpflow.engine.model import Model
from interpflow.engine.pairs import Pair
from interpflow.engine.sites import COMPONENTS, Site, all_sites
from interpflow.engine.state_statistics import embedding_sd, mean_state
from interpflow.engine.sweeps.gates import GateReport, GateRow, run_gates
from interpflow.engine.sweeps.pair_sweep import PairSweep
from interpflow.engine.sweeps.result import Audit, SweepResult
from interpflow.engine.sweeps.site_sweep import sweep_sites
from interpflow.engine.sweeps.sweeping import sweep

__all__ = [
    "COMPONENTS",
    "AddDirection",
    "Alignment",
    "Audit",
    "Continuation",
    "GateReport",
    "GateRow",
    "Interpolate",
    "Intervention",
    "MeanAblation",
    "Model",
    "Noise",
    "Pair",
    "PairSweep",
    "Patch",
    "ResampleAblation",
    "Scale",
    "Site",
    "SweepResult",
    "TokenBatch",
    "ZeroAblation",
    "alignment",
    "all_sites",
    "answer_contrast_metric",
    "combine_metrics",
    "embedding_sd",
    "generate_with",
    "kl_metric",
    "load",
    "mean_state",
    "run_gates",
    "sweep",
    "sweep_sites",
]
