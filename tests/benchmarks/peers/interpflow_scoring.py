"""interpflow's answer scoring."""

from __future__ import annotations

import numpy as np

from interpflow.inference.scoring import score_answers
from interpflow.models.acquire import load_transformer
from tests.benchmarks.job import Job, Place
from tests.benchmarks.peers.sorted_loop import scoring_job
from tests.benchmarks.works import ScoringWork


def score(work: ScoringWork, place: Place) -> Job:
    """One call of `score_answers` with its own batch size."""
    model, tokenizer = load_transformer(place.directory, device=place.device, dtype=place.dtype)
    prompts, answers = work.prompts(), work.answers()
    found: dict[str, np.ndarray] = {}

    def run() -> None:
        found["scores"] = score_answers(model, tokenizer, prompts, answers).log_prob

    return scoring_job(work, "score", run, found)
