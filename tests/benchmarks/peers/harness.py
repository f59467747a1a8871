"""lm-evaluation-harness 0.4: its Hugging Face model's `loglikelihood`, without task and report."""

# The peers lie in an environment of their own.
# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tests.benchmarks.job import Job, Place
from tests.benchmarks.peers.plain_hooks import load_model
from tests.benchmarks.peers.sorted_loop import load_tokenizer, scoring_job
from tests.benchmarks.works import ScoringWork


def score(work: ScoringWork, place: Place) -> Job:
    """One request per prompt and answer, as a multiple-choice task makes them."""
    harness = HFLM(
        pretrained=load_model(work, place),
        tokenizer=load_tokenizer(place),
        batch_size=work.batch,
        device=place.device,
    )
    prompts, answers = work.prompts(), work.answers()
    found: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def run() -> None:
        requests = [
            Instance("loglikelihood", {}, (prompt, answer), index)
            for prompt in prompts
            for index, answer in enumerate(answers)
        ]
        scores = harness.loglikelihood(requests, disable_tqdm=True)
        grid = np.array([score for score, _ in scores])
        found["scores"] = grid.reshape(len(prompts), len(answers))

    return scoring_job(work, "score", run, found)
