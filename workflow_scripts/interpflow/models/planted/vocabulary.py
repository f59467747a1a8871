"""The tokens of the planted models: letters to copy, markers to count, and the answers."""

from __future__ import annotations

from collections.abc import Sequence

LETTERS = tuple("abcdefghij")
MARKERS = ("x", "y")
START, QUERY, NO_MATCH = "<start>", "<count>", "<none>"
# A prompt holds 0 … MAX_COUNT markers where they are counted.
MAX_COUNT = 6
COUNTS = tuple(str(number) for number in range(MAX_COUNT + 1))

# What a prompt is made of comes first, what only answers comes after.
INPUT_TOKENS = (*LETTERS, *MARKERS, START, QUERY)
TOKENS = (*INPUT_TOKENS, *COUNTS, NO_MATCH)
TOKEN_ID = {token: index for index, token in enumerate(TOKENS)}

# Start, body, and the token at which the answer is read. A power of 2: averages over a prompt are
# then exact in every floating-point type.
PROMPT_LENGTH = 16
BODY = PROMPT_LENGTH - 2
ANSWER_POSITION = PROMPT_LENGTH - 1


def ids(tokens: Sequence[str]) -> tuple[int, ...]:
    """Token ids of tokens by name."""
    return tuple(TOKEN_ID[token] for token in tokens)
