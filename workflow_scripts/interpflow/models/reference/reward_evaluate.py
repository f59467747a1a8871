"""What the embedded reward model can tell apart, on problems it was never trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

from interpflow.models.reference.reward_corpus import WRONG, draw, right_answer, wrong_answer

EVALUATION_SEED = 30_000
PAIRS_PER_KIND = 400
ROWS = 64


@dataclass(frozen=True)
class HeldOutPair:
    """A held-out question with its right answer and a wrong one of a kind."""

    question: str
    right: str
    wrong: str
    kind: str
    n_steps: int


def held_out_pairs(per_kind: int, seed: int = EVALUATION_SEED) -> list[HeldOutPair]:
    """Pairs of each kind of fault, problems of one and two steps in turn."""
    rng = random.Random(seed)
    pairs = []
    for kind in WRONG:
        for index in range(per_kind):
            problem = draw(rng, 1 + index % 2, from_held_out=True)
            wrong = wrong_answer(problem, kind, rng).text
            pairs.append(
                HeldOutPair(problem.question, right_answer(problem), wrong, kind, 1 + index % 2)
            )
    return pairs


@torch.no_grad()
def pair_scores(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[str],
    answers: Sequence[str],
) -> np.ndarray:
    """Scores [pair] float64."""
    found = []
    for start in range(0, len(questions), ROWS):
        part = slice(start, start + ROWS)
        inputs = tokenizer(
            list(questions[part]), list(answers[part]), padding=True, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        found.append(model(**inputs).logits[:, 0].double().numpy())
    return np.concatenate(found)


def reward_metrics(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    per_kind: int = PAIRS_PER_KIND,
    seed: int = EVALUATION_SEED,
) -> dict[str, Any]:
    """Share of held-out pairs whose right answer scores higher: by kind of fault, by steps, and by
    which answer has more tokens.

    Beside it, on the same pairs: the share when the question is another pair's (what the answers
    give away by themselves), and the shares of always preferring the shorter or the longer answer
    (ties count half). `length_slope`: points of score per token, over right answers alone.
    """
    pairs = held_out_pairs(per_kind, seed)
    questions = [pair.question for pair in pairs]
    rights, wrongs = [pair.right for pair in pairs], [pair.wrong for pair in pairs]
    right = pair_scores(model, tokenizer, questions, rights)
    won = right > pair_scores(model, tokenizer, questions, wrongs)
    # Within a kind, the question of the next but one: of as many steps, and about other numbers.
    others = [
        questions[index - index % per_kind + (index + 2) % per_kind] for index in range(len(pairs))
    ]
    blind = pair_scores(model, tokenizer, others, rights) > pair_scores(
        model, tokenizer, others, wrongs
    )
    n_right, n_wrong = (
        np.array([len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]])
        for texts in (rights, wrongs)
    )
    kinds = np.array([pair.kind for pair in pairs])
    steps = np.array([pair.n_steps for pair in pairs])
    longer = np.sign(n_wrong - n_right)
    groups = {f"kind/{kind}": kinds == kind for kind in WRONG}
    groups |= {f"steps/{n}": steps == n for n in (1, 2)}
    names = {1: "wrong answer longer", 0: "equal length", -1: "wrong answer shorter"}
    groups |= {f"length/{name}": longer == sign for sign, name in names.items()}
    return {
        "n_pairs": len(pairs),
        "accuracy": {"overall": float(won.mean()), **_shares(won, groups)},
        "other_question": {"overall": float(blind.mean()), **_shares(blind, groups)},
        "shorter_preferred": float((longer > 0).mean() + 0.5 * (longer == 0).mean()),
        "longer_preferred": float((longer < 0).mean() + 0.5 * (longer == 0).mean()),
        "length_slope": float(np.polyfit(n_right, right, 1)[0]),
        "score_sd": float(right.std(ddof=1)),
    }


def _shares(won: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(won[chosen].mean()) for name, chosen in groups.items() if chosen.any()}
