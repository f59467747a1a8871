"""The rule check of a variant: what can be seen without reading that a question changed."""

from __future__ import annotations

import unicodedata
from collections import Counter

from interpflow.tasks.perturbations.operators import NULL, OPERATORS
from interpflow.tasks.perturbations.text import PerturbedText, SourceText, moved
from interpflow.tasks.perturbations.words import negations_of, numbers_of


def keeps_meaning(
    original: SourceText,
    perturbed: PerturbedText | str,
    operator: str,
    *,
    edit_protected: bool = False,
) -> str:
    """Empty where nothing speaks against a variant, else the reason in a few words.

    Asked in this order: valid Unicode (normalised, NFC, where the original is, obfuscation
    apart); a text that differs, unless the operator is `null`; line ends as many; numbers the same
    and in the same order, in digits or words; negations the same; protected spans intact; no word
    left out that the task turns on. A text without edits (a rewrite, or one that was given) must
    hold every protected piece as often as the original does. With `edit_protected`, numbers and
    protected pieces may differ: the gold answer is then derived anew.
    """
    text = perturbed if isinstance(perturbed, str) else perturbed.text
    known = OPERATORS.get(operator)
    family = known.family if known else "given"
    if not _is_clean(original.text, text, normalised=family != "obfuscation"):
        return "invalid Unicode"
    if (text == original.text) != (operator == NULL):
        return "text changed" if operator == NULL else "text unchanged"
    if text.count("\n") != original.text.count("\n"):
        return "line ends changed"
    if not edit_protected and numbers_of(text) != numbers_of(original.text):
        return "numbers changed"
    if negations_of(text) != negations_of(original.text):
        return "negation changed"
    if not edit_protected and not _keeps_protected(original, perturbed):
        return "protected words changed"
    if isinstance(perturbed, PerturbedText) and _leaves_out_main(original, perturbed):
        return "main word left out"
    return ""


def _is_clean(original: str, text: str, *, normalised: bool) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return (
        not normalised
        or unicodedata.is_normalized("NFC", text)
        or not unicodedata.is_normalized("NFC", original)
    )


def _keeps_protected(original: SourceText, perturbed: PerturbedText | str) -> bool:
    pieces = [original.text[start:end] for start, end in original.protected]
    if isinstance(perturbed, str):
        lower = perturbed.lower()
        return all(
            lower.count(piece) >= n for piece, n in Counter(p.lower() for p in pieces).items()
        )
    places = [moved(span, perturbed.edits) for span in original.protected]
    return all(perturbed.text[a:b] == piece for (a, b), piece in zip(places, pieces))


def _leaves_out_main(original: SourceText, perturbed: PerturbedText) -> bool:
    gone = [edit for edit in perturbed.edits if edit.new_start == edit.new_end]
    return any(edit.start <= a and b <= edit.end for edit in gone for a, b in original.main)
