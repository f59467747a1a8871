"""interpflow's sweep: bare, with its checks, and by its own slow oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from interpflow.engine import load
from interpflow.engine import sweep as run_sweep
from tests.benchmarks.job import Job, Part, Place
from tests.benchmarks.peers.plain_hooks import load_model
from tests.benchmarks.works import SweepWork

METRIC = "logit_diff"


def sweep(work: SweepWork, place: Place, **options: Any) -> Job:
    """One call of `interpflow.engine.sweep`; `options` are its further arguments."""
    model = load_engine(work, place)
    positions = "answer" if work.component == "head_out" else "all"
    pairs = work.pairs()
    found: dict[str, Any] = {}

    def run() -> None:
        found["result"] = run_sweep(
            model,
            pairs,
            component=work.component,
            positions=positions,
            direction="denoise",
            metrics=(METRIC,),
            **options,
        )

    def values() -> np.ndarray:
        effects = found["result"].effects[METRIC]
        return np.asarray(torch.as_tensor(effects).cpu(), dtype=np.float64)

    return Job([Part("sweep", run)], values)


def load_engine(work: SweepWork, place: Place) -> Any:
    """The engine's model; one without a directory is made on the device first."""
    source = place.directory or load_model(work, place)
    return load(source, device=place.device, dtype=place.dtype)
