"""Scores the plain way: one forward per prompt and answer, over the whole text."""

from __future__ import annotations

import numpy as np
import torch

from interpflow.models.tokens import encode


def plain_scores(model, tokenizer, prompts, answers):
    """[prompt, answer] sum of log-probabilities from separate, unpadded forwards."""
    scores = np.zeros((len(prompts), len(answers)))
    for i, prompt in enumerate(prompts):
        start = len(encode(tokenizer, prompt).ids)
        for j, answer in enumerate(answers):
            ids = torch.tensor([encode(tokenizer, prompt + answer).ids])
            with torch.no_grad():
                log_p = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)[0]
            scores[i, j] = sum(
                log_p[at - 1, ids[0, at]].item() for at in range(start, ids.shape[1])
            )
    return scores
