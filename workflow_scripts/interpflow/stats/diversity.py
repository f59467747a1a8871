"""Lexical diversity of token sequences, compared only at equal numbers of tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpflow.stats.record import EMPTY_SET, NO_FACTOR, Estimate, undefined

# Running type-token ratio at which a factor closes (McCarthy & Jarvis 2010).
MTLD_THRESHOLD = 0.72
DEFAULT_RESAMPLES = 999


@dataclass(frozen=True)
class Diversity:
    """Diversity of the first `n_tokens` tokens; entropies in bits, NaN where undefined."""

    n_tokens: int
    n_types: int
    distinct_1: float
    distinct_2: float
    entropy_bits: float
    entropy_corrected_bits: float
    entropy_normalized: float
    perplexity: float
    mtld: float
    flags: tuple[str, ...]


def distinct_n(tokens: Sequence[str], n: int) -> float:
    """Distinct n-grams over n-grams; NaN when there are none."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def entropy_bits(tokens: Sequence[str]) -> float:
    """Plug-in Shannon entropy of the token distribution in bits; NaN without tokens."""
    if not tokens:
        return math.nan
    shares = np.array(list(Counter(tokens).values())) / len(tokens)
    return float(-(shares * np.log2(shares)).sum())


def _mtld_one_way(tokens: Sequence[str], threshold: float) -> float:
    factors, seen, length = 0.0, set(), 0
    for token in tokens:
        seen.add(token)
        length += 1
        if len(seen) / length < threshold:
            factors, seen, length = factors + 1, set(), 0
    if length:
        factors += (1 - len(seen) / length) / (1 - threshold)
    return len(tokens) / factors if factors > 0 else math.inf


def mtld(tokens: Sequence[str], threshold: float = MTLD_THRESHOLD) -> float:
    """Measure of textual lexical diversity, mean of both directions (McCarthy & Jarvis 2010).

    Infinite when no factor closes even partly (all tokens distinct); NaN without tokens.
    """
    if not tokens:
        return math.nan
    forward = _mtld_one_way(tokens, threshold)
    return (forward + _mtld_one_way(tokens[::-1], threshold)) / 2


def diversity(tokens: Sequence[str], *, n_tokens: int | None = None) -> Diversity:
    """All measures on the first `n_tokens` tokens (None: all of them).

    Ratios of types to tokens fall with length: compare corpora at the same `n_tokens` only.
    """
    used = list(tokens[:n_tokens])
    if not used:
        nan = math.nan
        return Diversity(0, 0, nan, nan, nan, nan, nan, nan, nan, (EMPTY_SET,))
    types = len(set(used))
    entropy = entropy_bits(used)
    length = mtld(used)
    return Diversity(
        n_tokens=len(used),
        n_types=types,
        distinct_1=distinct_n(used, 1),
        distinct_2=distinct_n(used, 2),
        entropy_bits=entropy,
        # The plug-in entropy is short by (K − 1)/2n nats (Miller 1955).
        entropy_corrected_bits=entropy + (types - 1) / (2 * len(used)) / math.log(2),
        entropy_normalized=entropy / math.log2(types) if types > 1 else math.nan,
        perplexity=2**entropy,
        mtld=length,
        flags=(NO_FACTOR,) if math.isinf(length) else (),
    )


def diversity_difference(
    first: Sequence[Sequence[str]],
    second: Sequence[Sequence[str]],
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    level: float = 0.95,
) -> Estimate:
    """Difference in distinct-1 of two corpora of documents, at the same number of tokens.

    Documents are drawn without replacement up to half of the smaller corpus, many times: a
    bootstrap with replacement would repeat documents and so lower the diversity it measures, and
    half-samples have the sampling variance of the whole.
    """
    quantity = "distinct-1 difference"
    sizes = [sum(len(document) for document in corpus) for corpus in (first, second)]
    record: dict[str, Any] = {
        "n_units": len(first) + len(second),
        "n_resamples": n_resamples,
        "seed": seed,
        "ci_level": level,
        "test": "document_bootstrap",
    }
    budget = min(sizes) // 2
    if budget == 0:
        return undefined(quantity, EMPTY_SET, **record)
    rng = np.random.default_rng(seed)

    def draw(corpus: Sequence[Sequence[str]]) -> float:
        tokens: list[str] = []
        for index in rng.permutation(len(corpus)):
            tokens.extend(corpus[int(index)])
            if len(tokens) >= budget:
                break
        return distinct_n(tokens[:budget], 1)

    draws = np.array([draw(first) - draw(second) for _ in range(n_resamples)])
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(
        quantity=quantity,
        estimate=float(draws.mean()),
        ci_low=float(low),
        ci_high=float(high),
        **record,
    )
