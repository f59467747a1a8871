"""One call for every operator: a text in, a perturbed text or the reason for none out.

A variant is a function of (seed, example id, operator, variant, placement) and of nothing else.
Words are edited in an order drawn once, so n edits are the first n of any larger number.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from interpflow.config.identity import derived_seed
from interpflow.tasks.perturbations.operators import (
    CONTROL,
    NULL,
    OPERATORS,
    Operator,
    operator_named,
)
from interpflow.tasks.perturbations.proposals import Proposal
from interpflow.tasks.perturbations.styles import STRENGTHS, style_edits
from interpflow.tasks.perturbations.text import (
    PerturbedText,
    Placement,
    Rejected,
    SourceText,
    rebuilt,
)
from interpflow.tasks.perturbations.touched_words import matched_words
from interpflow.tasks.perturbations.words import (
    TextWords,
    adds_guarded_words,
    window,
    words_of,
)

TOO_FEW_WORDS = "too few words"
UNCHANGED = "text unchanged"
INVALID = "invalid Unicode"
GUARDED = "a number, negation or protected word would be added"
CONTROL_TARGETS: tuple[Placement, ...] = ("main", "any")  # what a control is matched to, in turn
MAX_REDRAWS = 8  # of one word's edit, until it makes no word that must not be made


@dataclass(frozen=True)
class Draw:
    """What the edits of one text are drawn with."""

    words: TextWords
    operator: Operator
    placement: Placement
    rng: random.Random


def perturb(
    source: SourceText,
    operator: str,
    *,
    seed: int,
    example_id: str,
    n_edits: int = 2,
    rate: float | None = None,
    placement: Placement = "any",
    strength: int = 2,
    variant: int = 0,
    edit_protected: bool = False,
) -> PerturbedText | Rejected:
    """A perturbed text, or why there is none.

    n_edits: words edited, one edit each, exactly as many or none (so that doses mean what they
    say); rate: share of the words the operator could edit, at least one, in place of n_edits.
    Words of fewer than four letters are edited only when no longer ones are left. placement:
    any word, words of `source.main` or of `source.other`. strength: 1 to 3, of styles.
    Arguments that an operator does not take (see `Operator`) have no effect on it.

    Protected spans, numbers, arithmetic operators and negations stay as they are unless
    `edit_protected`, and no edit makes another one. The text differs from the original unless
    the operator is `null`, keeps its line ends, and is normalised (NFC) where the original is,
    obfuscation apart.

    The control makes edits of `keyboard` in words of `source.other`, as many, and matched in
    length and place to the words that `keyboard` with placement `main` would edit, then, where
    those are too few, with placement `any`. Where `other` has too few words, it takes words that
    are neither main nor among those.

    Raises UserError for an unknown operator (with the nearest name) and ValueError for a number,
    rate or strength out of range.
    """
    known = operator_named(operator)
    if n_edits < 1 or (rate is not None and not 0 < rate <= 1) or strength not in STRENGTHS:
        raise ValueError(f"no edits of n_edits={n_edits}, rate={rate}, strength={strength}")
    if not _is_valid(source.text):
        return Rejected(operator, INVALID)
    if operator == NULL:
        return PerturbedText(source.text, NULL)
    drawn_for = placement if known.takes_placement else "any"
    rng = random.Random(derived_seed(seed, example_id, operator, variant, drawn_for))
    words = words_of(source, edit_protected=edit_protected)
    if known.graded:
        edits = style_edits(source, operator, strength, rng, edit_protected=edit_protected)
        # A template's words are no edits of protected ones: of them, only numbers count.
        return _finished(replace(words, guarded=frozenset()), known, edits)
    if operator == CONTROL:
        drawn = (seed, example_id, "keyboard", variant)
        targets = [
            Draw(words, OPERATORS["keyboard"], aim, random.Random(derived_seed(*drawn, aim)))
            for aim in CONTROL_TARGETS
        ]
        proposals = _control_proposals(targets, rng, _count(targets[-1], n_edits, rate))
    else:
        draw = Draw(words, known, placement, rng)
        proposals = _taken(draw, _count(draw, n_edits, rate))
    if proposals is None:
        return Rejected(operator, TOO_FEW_WORDS)
    return _finished(words, known, [(p.operation, p.start, p.end, p.new) for p in proposals])


def _candidates(draw: Draw) -> list[int]:
    return [
        index
        for index, word in enumerate(draw.words.words)
        if word.editable and word.stands_at(draw.placement)
    ]


def _count(draw: Draw, n_edits: int, rate: float | None) -> int:
    """Edits that a rate asks for: a share of the words that the operator can edit, of the long
    ones where there are any."""
    if rate is None:
        return n_edits
    # Its own generator: asking must not change what is drawn.
    asked = Draw(draw.words, draw.operator, draw.placement, random.Random(0))
    able = [index for index in _candidates(draw) if _proposal(asked, index) is not None]
    long = [index for index in able if draw.words.words[index].is_long]
    return max(1, int(rate * len(long or able) + 0.5))


def _proposal(draw: Draw, index: int) -> Proposal | None:
    """The edit of one word, redrawn while it makes a word that must not be made."""
    propose = draw.operator.propose
    assert propose is not None
    words, text = draw.words, draw.words.text
    for _ in range(MAX_REDRAWS):
        found = propose(words, index, draw.placement, draw.rng)
        if found is None:
            return None
        if text[found.start : found.end] == found.new:
            continue
        left, right = window(text, found.start, found.end)
        before = text[left:right]
        after = text[left : found.start] + found.new + text[found.end : right]
        if not adds_guarded_words(words, before, after) and _keeps_form(
            draw.operator, before, after
        ):
            return found
    return None


def _proposals(draw: Draw) -> Iterator[Proposal]:
    """Edits of different words in drawn order, long words before short ones."""
    candidates = _candidates(draw)
    draw.rng.shuffle(candidates)
    candidates.sort(key=lambda index: not draw.words.words[index].is_long)
    used: set[int] = set()
    for index in candidates:
        if index in used:
            continue
        proposal = _proposal(draw, index)
        if proposal is not None and used.isdisjoint(proposal.words):
            used.update(proposal.words)
            yield proposal


def _taken(draw: Draw, n: int) -> list[Proposal] | None:
    """The first n edits; None where there are fewer."""
    found = list(islice(_proposals(draw), n))
    return found if len(found) == n else None


def _control_proposals(targets: list[Draw], rng: random.Random, n: int) -> list[Proposal] | None:
    words = targets[0].words
    aimed: list[int] = []
    for target in targets:
        found = (proposal.words[0] for proposal in _proposals(target))
        aimed += islice((index for index in found if index not in aimed), n - len(aimed))
    outside = [
        index
        for index, word in enumerate(words.words)
        if word.editable and not word.is_main and index not in aimed
    ]
    other = [index for index in outside if words.words[index].is_other]
    draw = Draw(words, targets[0].operator, "any", rng)
    for pool in (other, outside):
        proposals = {index: found for index in pool if (found := _proposal(draw, index))}
        places = {words.words[index].span: index for index in proposals}
        spans = [words.words[index].span for index in aimed]
        matches = matched_words(spans, list(places), len(words.text))
        if len(matches) == n:
            return [proposals[places[match]] for match in matches]
    return None


def _finished(
    words: TextWords, operator: Operator, edits: list[tuple[str, int, int, str]]
) -> PerturbedText | Rejected:
    done = rebuilt(words.text, edits, operator.name)
    if done.text == words.text:
        return Rejected(operator.name, UNCHANGED)
    # Edits were looked at one by one; two beside each other could still make such a word.
    if adds_guarded_words(words, words.text, done.text):
        return Rejected(operator.name, GUARDED)
    if not _keeps_form(operator, words.text, done.text):
        return Rejected(operator.name, INVALID)
    return done


def _is_valid(text: str) -> bool:
    """Whether a text can be encoded: it holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keeps_form(operator: Operator, before: str, after: str) -> bool:
    if after.isascii() or operator.family == "obfuscation":
        return True
    return unicodedata.is_normalized("NFC", after) or not unicodedata.is_normalized("NFC", before)
