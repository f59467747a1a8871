"""The plain way to score answers: batches sorted by length, one forward per prompt and answer of
several tokens, one per prompt when all answers are one token."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.job import Job, Part, Place
from tests.benchmarks.peers.plain_hooks import load_model
from tests.benchmarks.works import ScoringWork


def load_tokenizer(place: Place) -> Any:
    """The tokenizer that lies beside the weights."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place.directory)


def scoring_job(work: ScoringWork, name: str, run: Any, found: dict[str, np.ndarray]) -> Job:
    """A job of one part; `found["scores"]` is [prompt, answer]."""
    scale = work.total / work.n_prompts
    note = "" if scale == 1 else f"{work.n_prompts} of {work.total} prompts, scaled"
    return Job([Part(name, run, scale)], lambda: found["scores"], note)


def score(work: ScoringWork, place: Place) -> Job:
    """Right padding needs no mask in a causal decoder: no scored position sees the padding."""
    model, tokenizer = load_model(work, place), load_tokenizer(place)
    texts, endings = work.prompts(), work.answers()
    found: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def run() -> None:
        prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        answers = tokenizer(endings, add_special_tokens=False)["input_ids"]
        found["scores"] = np.zeros((len(prompts), len(answers)))
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        rows_per_prompt = 1 if work.answer_tokens == 1 else len(answers)
        step = max(1, work.batch // rows_per_prompt)
        for start in range(0, len(order), step):
            chosen = order[start : start + step]
            found["scores"][chosen] = batch(
                model, [prompts[i] for i in chosen], answers, work.answer_tokens
            )

    return scoring_job(work, "score", run, found)


def batch(model: Any, prompts: list[list[int]], answers: list[list[int]], size: int) -> np.ndarray:
    """Log-probabilities [prompt, answer] of a few prompts."""
    if size == 1:
        rows, tails = prompts, [[]]
    else:
        tails = [answer[:-1] for answer in answers]
        rows = [prompt + tail for prompt in prompts for tail in tails]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
    logits: Tensor = model(ids, use_cache=False).logits
    starts = [len(prompt) - 1 for prompt in prompts for _ in tails]
    # [row, answer token, vocabulary]: only the places that predict an answer's token.
    places = torch.tensor([[s + k for k in range(size)] for s in starts], device=model.device)
    at = torch.arange(len(rows), device=model.device)[:, None]
    log_p = logits[at, places].float().log_softmax(-1)
    tokens = torch.tensor(answers, device=model.device)
    if size == 1:
        return log_p[:, 0, tokens[:, 0]].double().cpu().numpy()
    wanted = tokens.repeat(len(prompts), 1)
    picked = log_p.gather(2, wanted[:, :, None])[:, :, 0].sum(1)
    return picked.view(len(prompts), len(answers)).double().cpu().numpy()
