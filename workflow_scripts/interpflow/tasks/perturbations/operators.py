"""The operators by name: what family each belongs to and what it takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from interpflow.errors import UserError
from interpflow.tasks.perturbations import (
    letter_operators,
    mark_operators,
    word_lists,
    word_operators,
)
from interpflow.tasks.perturbations.proposals import Propose
from interpflow.tasks.perturbations.styles import STYLES

NULL = "null"
CONTROL = "control"


@dataclass(frozen=True)
class Operator:
    """One kind of perturbation. family: one of `text.FAMILIES`.

    counts_edits: takes a number or rate of edits; takes_placement: takes a placement;
    graded: takes a strength. propose: its edit of one word, where it edits single words.
    """

    name: str
    family: str
    counts_edits: bool = False
    takes_placement: bool = False
    graded: bool = False
    propose: Propose | None = None


def _counted(family: str, proposals: Mapping[str, Propose]) -> list[Operator]:
    return [
        Operator(name, family, counts_edits=True, takes_placement=True, propose=propose)
        for name, propose in proposals.items()
    ]


_TYPOS: dict[str, Propose] = {
    "keyboard": letter_operators.keyboard,
    "transposition": letter_operators.transposition,
    "deletion": letter_operators.deletion,
    "insertion": letter_operators.insertion,
    "repetition": letter_operators.repetition,
    "missing_word": word_operators.missing_word,
    "doubled_word": word_operators.doubled_word,
    "word_swap": word_operators.word_swap,
    "word_split": word_operators.word_split,
    "word_merge": word_operators.word_merge,
    "homophone": word_lists.homophone,
    "misspelling": word_lists.misspelling,
    "case": letter_operators.letter_case,
    "punctuation": mark_operators.punctuation,
    "whitespace": mark_operators.whitespace,
    "ocr": letter_operators.ocr,
}
_OBFUSCATIONS: dict[str, Propose] = {
    "homoglyph": letter_operators.homoglyph,
    "zero_width": letter_operators.zero_width,
}

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        operator.name: operator
        for operator in (
            Operator(NULL, "control"),
            Operator(CONTROL, "control", counts_edits=True),
            *_counted("typo", _TYPOS),
            *_counted("obfuscation", _OBFUSCATIONS),
            *(Operator(style, "style", graded=True) for style in STYLES),
        )
    }
)


def operator_named(name: str) -> Operator:
    """The operator of a name; raises UserError with the nearest name for an unknown one."""
    if name in OPERATORS:
        return OPERATORS[name]
    near = difflib.get_close_matches(name, OPERATORS, n=1, cutoff=0.5)
    known = f"known: {', '.join(OPERATORS)}"
    raise UserError(
        f"unknown operator {name!r}",
        where="perturbations.operators",
        remedy=f"did you mean {near[0]!r}? {known}" if near else known,
    )


def builtin_operators() -> tuple[str, ...]:
    """What `operators: null` stands for, in a fixed order: every typo, obfuscation and style. The
    null operator and the control are not among them; they are always run."""
    return tuple(name for name, known in OPERATORS.items() if known.family != "control")
