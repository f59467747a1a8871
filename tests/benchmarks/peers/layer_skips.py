"""Each block left out in turn: as layer plans, and by a hook that takes back what it adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interpflow.engine import load
from interpflow.engine.layers.execute import PlanRunner
from interpflow.plans.layer_plan import LayerPlan
from tests.benchmarks.job import Job, Part, Place
from tests.benchmarks.peers.plain_hooks import blocks, load_model
from tests.benchmarks.works import SkipWork


def plans(work: SkipWork, place: Place, *, fast: bool = True) -> Job:
    """One `PlanRunner` over all plans."""
    source = place.directory or load_model(work, place)
    model = load(source, device=place.device, dtype=place.dtype)
    n = work.shape.n_layers
    wanted = [LayerPlan.of(b for b in range(n) if b != out) for out in work.skipped()]
    documents, targets = work.documents()
    last = [[work.length - 1]] * work.n_documents
    found = np.zeros((len(wanted), work.n_documents))

    def run() -> None:
        runner = PlanRunner(model, wanted, fast=fast)
        for each in runner.states(documents, last):
            rows = list(each.rows)
            logits = runner.unembed(each.states)
            found[each.plan, rows] = of_targets(logits, [targets[row] for row in rows])

    return Job([Part("plans", run)], lambda: found)


def hooks(work: SkipWork, place: Place, *, last_only: bool = False) -> Job:
    """A whole forward of the transformers model for each plan and batch of as many tokens."""
    model = load_model(work, place)
    documents, targets = work.documents()
    ids = torch.tensor(documents, device=model.device)
    options = {"use_cache": False, **({"logits_to_keep": 1} if last_only else {})}
    found = np.zeros((len(work.skipped()), work.n_documents))

    @torch.no_grad()
    def run() -> None:
        for plan, out in enumerate(work.skipped()):
            handles = [] if out is None else [blocks(model)[out].register_forward_hook(unchanged)]
            try:
                logits = model(ids, **options).logits[:, -1]
            finally:
                for handle in handles:
                    handle.remove()
            found[plan] = of_targets(logits, targets)

    return Job([Part("forwards", run)], lambda: found)


def unchanged(_block: Any, args: tuple, output: Any) -> Any:
    """The block's input in the place of its output."""
    return args[0] if isinstance(output, Tensor) else (args[0], *output[1:])


def of_targets(logits: Tensor, targets: list[int]) -> np.ndarray:
    """Log-probabilities [row] of one token each, from logits [row, vocab]."""
    chosen = torch.tensor(targets, device=logits.device)[:, None]
    return logits.float().log_softmax(dim=-1).gather(1, chosen)[:, 0].double().cpu().numpy()
