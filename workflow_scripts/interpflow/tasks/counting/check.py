"""Rule-based checks of lists and pairs, independent of how they were generated.

Everything is derived again from the words and the lexicon: labels, counts, positions and what
two lists of a pair may differ in. The generator's own numbers are only compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interpflow.tasks.counting.lexicon import Lexicon


def check_example(row: Mapping[str, Any], lexicon: Lexicon) -> str:
    """Reason why a row of `counting_examples` is wrong; empty when it is right."""
    words, category = row["words"], row["category"]
    if len(words) != row["length"]:
        return "the length is not the number of words"
    if len(set(words)) < len(words):
        return "a word occurs twice"
    unknown = [word for word in words if not lexicon.categories_of(word)]
    if unknown:
        return f"unknown word {unknown[0]!r}"
    ambiguous = [word for word in words if lexicon.is_ambiguous(word)]
    if ambiguous:
        return f"ambiguous word {ambiguous[0]!r}"
    truth = [category in lexicon.categories_of(word) for word in words]
    if truth != list(row["is_match"]):
        wrong = next(word for word, a, b in zip(words, truth, row["is_match"]) if a != b)
        return f"wrong label of {wrong!r}"
    if sum(truth) != row["count"]:
        return "the count is not the number of members"
    if [i for i, match in enumerate(truth) if match] != list(row["match_positions"]):
        return "wrong match positions"
    if [sum(truth[: i + 1]) for i in range(len(truth))] != list(row["running_count"]):
        return "wrong running count"
    spans = zip(row["word_starts"], row["word_ends"])
    if [row["prompt"][start:end] for start, end in spans] != list(words):
        return "the prompt does not hold the words where it says"
    if str(row["count"]) not in row["answer"]:
        return "the answer does not state the count"
    return ""


def check_pair(row: Mapping[str, Any], lexicon: Lexicon) -> str:
    """Reason why a row of `counting_pairs` is wrong; empty when it is right."""
    clean, corrupted = row["clean_words"], row["corrupted_words"]
    controls = (row["clean_control_words"], row["corrupted_control_words"])
    lists = [clean, corrupted, *(words for words in controls if words)]
    if any(len(words) != row["length"] or len(set(words)) < len(words) for words in lists):
        return "a list has the wrong length or a word twice"
    ambiguous = [word for words in lists for word in words if lexicon.is_ambiguous(word)]
    if ambiguous:
        return f"ambiguous word {ambiguous[0]!r}"

    def members(words: list[str]) -> list[bool]:
        return [row["category"] in lexicon.categories_of(word) for word in words]

    counts = [sum(members(words)) for words in lists]
    expected = [row["clean_count"], row["corrupted_count"]] * 2
    if counts != expected[: len(counts)]:
        return "a count is wrong"
    if row["delta"] != row["clean_count"] - row["corrupted_count"] or row["delta"] == 0:
        return "the shift is wrong"
    if row["kind"] == "minimal":
        return _check_minimal(row, lists, members)
    if row["kind"] == "prefix":
        return _check_prefix(row, lists)
    return ""


def _check_minimal(row: Mapping[str, Any], lists: list[list[str]], members: Any) -> str:
    clean = lists[0]
    place = row["position"]
    for other in lists[1:]:
        changed = [i for i, (a, b) in enumerate(zip(clean, other)) if a != b]
        if changed != [place]:
            return "the lists differ in more than the swapped word"
    labels = [members(words)[place] for words in lists]
    if labels != [True, False, True, False]:
        return "the swap is not member against non-member"
    return ""


def _check_prefix(row: Mapping[str, Any], lists: list[list[str]]) -> str:
    k = row["position"]
    if not 0 < k < row["length"]:
        return "no word before or after the change"
    if any(words[k:] != lists[0][k:] for words in lists[1:]):
        return "the lists do not share their words from the position on"
    if lists[0][:k] == lists[1][:k]:
        return "the prefixes are the same"
    return ""
