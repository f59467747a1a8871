"""Are the two sides of minimal pairs alike in all but membership?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interpflow.stats.balance import BALANCE_LIMIT, Balance, balance_table
from interpflow.tasks.counting.lexicon import Lexicon

BAND_RANK = {"low": 0, "mid": 1, "high": 2}


def swapped_word_balance(
    minimal: Sequence[Mapping[str, Any]], lexicon: Lexicon, limit: float = BALANCE_LIMIT
) -> tuple[Balance, ...]:
    """Spelling length and frequency of the swapped words: members against the non-members in
    their place. The standardized difference is NaN for words without a frequency band."""

    def covariates(side: str) -> dict[str, list[float]]:
        words = [row[f"{side}_words"][row["position"]] for row in minimal]
        return {
            "word length": [len(word) for word in words],
            "frequency band": [BAND_RANK.get(lexicon.frequency_band(w), np.nan) for w in words],
        }

    return balance_table(covariates("clean"), covariates("corrupted"), limit=limit)
