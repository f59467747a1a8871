"""Damaged prompts beside their clean ones: what is patched into what, token by token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from interpflow.config.identity import content_hash
from interpflow.models.tokens import Encoded, TemplatePolicy, apply_template, encode_all
from interpflow.studies.robustness.patches.prompt_alignment import (
    PromptSide,
    donor_table,
    prompt_side,
)
from interpflow.tasks.perturbations.text import Edit

Row = Mapping[str, Any]
# Operators that leave the task's words alone are no damage to be carried.
UNDAMAGING_FAMILIES = ("clean", "control")
EXACT, EDITED = "exact", "edited"
SLOTS = ("edited", "edited_span", "numbers", "later", "frame", "answer", "all")


@dataclass(frozen=True)
class DamagedPair:
    """A clean prompt that is answered right and a variant of it that is not.

    donor_of[p] is the clean position that stands for position p of the perturbed prompt, −1 where
    there is none: tokens outside the edits one to one; of an edited word, its last tokens. All
    other tokens of an edited word get the clean word's last state as well (`span_donor_of`).
    `clean_token`, `perturbed_token`: what each greedy answer goes on with.
    """

    pair_id: str
    row: Row
    clean_row: Row
    clean: PromptSide
    perturbed: PromptSide
    donor_of: tuple[int, ...]
    span_donor_of: tuple[int, ...]
    clean_token: int
    perturbed_token: int

    @property
    def alignment(self) -> str:
        """exact: equally many tokens, each with its counterpart; edited: the words alone."""
        full = len(self.clean.ids) == len(self.perturbed.ids) and self.donor_of == tuple(
            range(len(self.clean.ids))
        )
        return EXACT if full else EDITED

    def slots(self, *, clean: bool) -> dict[str, list[int] | None]:
        """Token positions replaced together, by name, of the run that is patched; None where the
        pair has no such place. The slots of the clean run (noising) are the counterparts.

        edited, edited_span: last tokens, and all tokens, of the edited words; numbers; later: the
        question's other tokens behind the first edited word; frame: what stands around the
        question; answer: the last token of the prompt and the answer as far as both agree; all
        aligned positions.
        """
        side, other = (self.clean, self.perturbed) if clean else (self.perturbed, self.clean)
        table = self.reversed_table() if clean else self.donor_of
        aligned = [p for p in range(len(side.ids)) if table[p] >= 0]
        # What is read at the answer belongs to it alone, even where a prompt ends in an edit.
        before = [p for p in aligned if p < side.n_prompt - 1]
        first = min(side.edited, default=len(side.ids))
        words = {p for word in side.edited_span for p in word}
        inside = set(side.question)
        found = {
            "edited": [p for p in before if p in side.edited],
            "edited_span": sorted(
                p
                for mine, theirs in zip(side.edited_span, other.edited_span)
                if theirs
                for p in mine
                if p < side.n_prompt - 1
            ),
            "numbers": [p for p in before if p in side.numbers],
            "later": [p for p in before if p in inside and p > first and p not in words],
            "frame": [p for p in before if p not in inside],
            "answer": list(range(side.n_prompt - 1, len(side.ids))),
            "all": aligned,
        }
        return {name: places or None for name, places in found.items()}

    def role_of(self, position: int) -> str:
        """What a token of the perturbed run is: edited, number, answer, unaligned or other."""
        if any(position in word for word in self.perturbed.edited_span):
            return "edited"
        if position in self.perturbed.numbers:
            return "number"
        if position >= self.perturbed.n_prompt - 1:
            return "answer"
        return "other" if self.donor_of[position] >= 0 else "unaligned"

    def donor_table(self, *, clean: bool) -> list[int]:
        """The donor's position of each position of the run that is patched, −1 where none is."""
        if not clean:
            return list(self.span_donor_of)
        table = list(self.reversed_table())
        for mine, theirs in zip(self.clean.edited_span, self.perturbed.edited_span):
            for position in mine:
                if theirs and table[position] < 0:
                    table[position] = theirs[-1]
        return table

    def reversed_table(self) -> tuple[int, ...]:
        """The perturbed position of each clean position, −1 where there is none."""
        table = [-1] * len(self.clean.ids)
        for perturbed, clean in enumerate(self.donor_of):
            if clean >= 0:
                table[clean] = perturbed
        return tuple(table)

    def to_row(self) -> dict[str, Any]:
        """The pair as a row of the table `robustness_pairs`."""
        places = [(p, c) for p, c in enumerate(self.donor_of) if c >= 0]
        return {
            "pair_id": self.pair_id,
            "example_id": self.row["example_id"],
            "clean_example_id": self.clean_row["example_id"],
            **{key: self.row[key] for key in ("base_id", "family_id", "split", "operator")},
            "clean_ids": list(self.clean.ids),
            "perturbed_ids": list(self.perturbed.ids),
            "clean_prompt_tokens": self.clean.n_prompt,
            "perturbed_prompt_tokens": self.perturbed.n_prompt,
            "clean_token": self.clean_token,
            "perturbed_token": self.perturbed_token,
            "aligned_perturbed": [p for p, _ in places],
            "aligned_clean": [c for _, c in places],
            "alignment": self.alignment,
        }


def damaged_pairs(
    examples: Mapping[str, Row],
    answers: Sequence[Row],
    tokenizer: Any,
    policy: TemplatePolicy,
    n_pairs: int,
) -> tuple[list[DamagedPair], dict[str, int]]:
    """Up to `n_pairs` pairs, operators in turn, and how many variants were left out by reason.

    examples: rows of `robustness_examples` by id; answers: rows of `robustness_answers`. Only
    variants that were accepted count: a prompt that lost its meaning has no answer to restore.
    """
    has_end = tokenizer.eos_token_id is not None
    clean = {row["base_id"]: row for row in answers if row["operator"] == "clean"}
    refused: Counter[str] = Counter()
    by_operator: dict[str, list[Row]] = defaultdict(list)
    for row in answers:
        if row["family"] in UNDAMAGING_FAMILIES:
            continue
        reason = _why_not(row, clean.get(row["base_id"]), has_end)
        if reason:
            refused[reason] += 1
        else:
            by_operator[row["operator"]].append(row)
    chosen = _in_turn(by_operator)
    refused["more pairs than asked for"] += max(0, len(chosen) - n_pairs)
    chosen = chosen[:n_pairs]
    pairs = [
        _pair(row, clean[row["base_id"]], examples, encoded, tokenizer)
        for row, encoded in zip(
            chosen,
            _encoded(
                [(examples[r["example_id"]], examples[clean[r["base_id"]]["example_id"]])
                 for r in chosen],
                tokenizer, policy,
            ),
        )
    ]  # fmt: skip
    return pairs, {reason: n for reason, n in refused.items() if n}


def _why_not(row: Row, clean: Row | None, has_end: bool) -> str:
    if clean is None or clean["strict_correct"] is None or row["strict_correct"] is None:
        return "no gold answer, or not answered"
    if not clean["strict_correct"]:
        return "clean prompt answered wrong"
    if row["strict_correct"]:
        return "answered right"
    if not row["accepted"]:
        return "meaning not kept"
    if row["gold"] != clean["gold"]:
        return "another answer is right"
    mine, theirs = list(row["token_ids"]), list(clean["token_ids"])
    if mine == theirs:
        return "same tokens, read otherwise"
    if not has_end and _common(mine, theirs) == min(len(mine), len(theirs)):
        return "one answer begins with the other, and the tokenizer has no end token"
    return ""


def _common(mine: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two answers begin with together."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(mine, theirs)))


def _in_turn(by_operator: Mapping[str, list[Row]]) -> list[Row]:
    """Rows of all operators in turn, those of an operator by a hash of their id."""
    waiting = {
        operator: sorted(rows, key=lambda row: content_hash(["pair", row["example_id"]]))
        for operator, rows in sorted(by_operator.items())
    }
    longest = max(map(len, waiting.values()), default=0)
    return [rows[i] for i in range(longest) for rows in waiting.values() if i < len(rows)]


def _encoded(
    pairs: Sequence[tuple[Row, Row]], tokenizer: Any, policy: TemplatePolicy
) -> list[tuple[tuple[Encoded, int], tuple[Encoded, int]]]:
    """Each prompt's tokens, and where its own first character stands in the text of its chat
    template."""
    texts = [apply_template(tokenizer, row["prompt"], policy) for pair in pairs for row in pair]
    encoded = encode_all(tokenizer, [each.text for each in texts])
    both = [(found, text.start) for found, text in zip(encoded, texts)]
    return list(zip(both[0::2], both[1::2], strict=True))


def _pair(
    row: Row,
    clean_row: Row,
    examples: Mapping[str, Row],
    encoded: tuple[tuple[Encoded, int], tuple[Encoded, int]],
    tokenizer: Any,
) -> DamagedPair:
    example, clean_example = examples[row["example_id"]], examples[clean_row["example_id"]]
    (perturbed_tokens, start), (clean_tokens, clean_start) = encoded
    end = tokenizer.eos_token_id
    common = _common(row["token_ids"], clean_row["token_ids"])
    prefix = tuple(clean_row["token_ids"][:common])
    words = list(zip(example["word_starts"], example["word_ends"]))
    clean_words = list(zip(example["clean_word_starts"], example["clean_word_ends"]))
    perturbed = prompt_side(perturbed_tokens, start, example, words, prefix)
    clean = prompt_side(clean_tokens, clean_start, clean_example, clean_words, prefix)
    edits = [
        Edit("", a + clean_start, b + clean_start, c + start, d + start)
        for a, b, c, d in zip(
            example["clean_starts"], example["clean_ends"], example["edit_starts"],
            example["edit_ends"],
        )
    ]  # fmt: skip
    table = donor_table(perturbed_tokens, clean_tokens, edits, perturbed, clean)
    spans = list(table)
    for mine, theirs in zip(perturbed.edited_span, clean.edited_span):
        for position in mine:
            if theirs and spans[position] < 0:
                spans[position] = theirs[-1]
    return DamagedPair(
        pair_id=content_hash(["robustness pair", row["example_id"]]),
        row=row,
        clean_row=clean_row,
        clean=clean,
        perturbed=perturbed,
        donor_of=table,
        span_donor_of=tuple(spans),
        clean_token=_next(clean_row, common, end),
        perturbed_token=_next(row, common, end),
    )


def _next(row: Row, at: int, end: int) -> int:
    """Token `at` of a greedy answer; the end token behind its last one."""
    ids = row["token_ids"]
    return int(ids[at]) if at < len(ids) else end
