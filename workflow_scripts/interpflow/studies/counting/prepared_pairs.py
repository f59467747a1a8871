"""Pairs as a model sees them: aligned tokens, answer tokens, and the places that can be patched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from interpflow.errors import UserError
from interpflow.models.tokens import TemplatePolicy, apply_template, encode, joined_answers
from interpflow.studies.counting.pair_repair import repair_pair
from interpflow.studies.counting.tokens import PromptTokens, tokenize_prompt
from interpflow.studies.counting.word_widths import WordWidths, measure_widths
from interpflow.tasks.counting.lexicon import Lexicon
from interpflow.tasks.counting.prompts import CountingTemplate, answer_text, render

LISTS = ("clean", "corrupted", "clean_control", "corrupted_control")
NEXT_WORDS = 5  # words after the swapped one that get a slot of their own in the map
# Tokens before the answer that get a slot of their own. What a wording says after its list takes
# fewer; a chat template's fixed text can take dozens, each as costly to patch as a word.
LONGEST_TAIL = 12
MIN_COUNTS = 3  # with fewer, no answer can be off by more than one

NO_ANSWER_TOKEN = "the answer's token does not tell its count apart"
NOT_ALIGNED = "words of the lists take different numbers of tokens"
TWICE = "the same pair as another"


@dataclass(frozen=True)
class PreparedPair:
    """A pair whose four lists take the same token positions in one model's tokenizer.

    `row` is the pair as used; `repaired` tells whether words of it were replaced to that end.
    """

    row: Mapping[str, Any]
    clean: PromptTokens
    corrupted: PromptTokens
    clean_control: PromptTokens | None
    corrupted_control: PromptTokens | None
    repaired: bool = False

    @property
    def position(self) -> int:
        return int(self.row["position"])


@dataclass(frozen=True)
class AnswerTokens:
    """The token of each count 0..max of one wording by which the counts differ.

    `shared_ids` (with their texts) stand before it whatever the count, such as a lone space: they
    are given with the prompt, so that the token after them is the count's own.
    """

    token_ids: tuple[int, ...]
    shared_ids: tuple[int, ...] = ()
    shared_texts: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(range(len(self.token_ids)))


def answer_tokens(
    tokenizer: Any, prompt: str, template: CountingTemplate, max_count: int
) -> AnswerTokens:
    """Counts from 0 up that one token tells apart; `prompt` as given, chat template included.

    Where 10 goes on as 1 does, the counts end at 9: pairs beyond are left out. Raises UserError
    when not even the first three counts differ.
    """
    answers = [answer_text(template, n) for n in range(max_count + 1)]
    ids = joined_answers(tokenizer, prompt, answers)
    shortest = min(len(found) for found in ids)
    n_shared = next(
        (i for i in range(shortest) if len({found[i] for found in ids}) > 1), shortest - 1
    )
    own = [found[n_shared] for found in ids]
    n_distinct = next((n for n in range(len(own)) if own[n] in own[:n]), len(own))
    if n_distinct < min(MIN_COUNTS, len(own)):
        same = answers[own.index(own[n_distinct])]
        raise UserError(
            f"the answers {same!r} and {answers[n_distinct]!r} begin with the same token: no token "
            f"tells the counts 0 to {MIN_COUNTS - 1} apart",
            where=f"wording {template.id!r} in the tokenizer {tokenizer.name_or_path}",
            remedy="choose another wording in counting.pairs.templates, one whose answer begins "
            "with its number",
        )
    whole = encode(tokenizer, prompt + answers[0])
    start = len(encode(tokenizer, prompt).ids)
    shared = whole.offsets[start : start + n_shared]
    return AnswerTokens(
        tuple(own[:n_distinct]),
        tuple(ids[0][:n_shared]),
        tuple(whole.text[first:end] for first, end in shared),
    )


@dataclass(frozen=True)
class Wording:
    """One wording as one model's tokenizer has it."""

    tokenizer: Any
    lexicon: Lexicon
    template: CountingTemplate
    chat_template: TemplatePolicy
    answers: AnswerTokens

    @cached_property  # needed only where lists do not line up by themselves
    def widths(self) -> WordWidths:
        return measure_widths(self.tokenizer, self.lexicon, self.template)

    def tokens(self, category: str, words: Sequence[str]) -> PromptTokens:
        """A list's prompt up to the token that states the count."""
        prompt = render(self.template, self.lexicon, category, tuple(words))
        found = tokenize_prompt(self.tokenizer, prompt.text, prompt.word_spans, self.chat_template)
        return replace(
            found,
            text=found.text + "".join(self.answers.shared_texts),
            ids=found.ids + self.answers.shared_ids,
            texts=found.texts + self.answers.shared_texts,
        )


def read_wording(
    tokenizer: Any,
    lexicon: Lexicon,
    template: CountingTemplate,
    chat_template: TemplatePolicy,
    max_count: int,
) -> Wording:
    """The wording with the tokens of its answers 0..max_count; see `answer_tokens`."""
    category = lexicon.categories[0]
    sample = render(template, lexicon, category, lexicon.members(category)[:MIN_COUNTS])
    given = apply_template(tokenizer, sample.text, chat_template).text
    answers = answer_tokens(tokenizer, given, template, max_count)
    return Wording(tokenizer, lexicon, template, chat_template, answers)


def prepare_pairs(
    rows: Sequence[Mapping[str, Any]], wording: Wording, n_wanted: int
) -> tuple[list[PreparedPair], Counter[str]]:
    """The first `n_wanted` pairs that line up, words replaced where needed, and how many were
    refused for what."""
    prepared: list[PreparedPair] = []
    refused: Counter[str] = Counter()
    ids = {row["pair_id"] for row in rows}
    for row in rows:
        if len(prepared) == n_wanted:
            break
        if max(row["clean_count"], row["corrupted_count"]) >= len(wording.answers.token_ids):
            refused[NO_ANSWER_TOKEN] += 1
            continue
        pair = _line_up(row, wording, repaired=False)
        if pair is None:
            other, reason = repair_pair(row, wording.lexicon, wording.widths)
            if other is None:
                refused[reason] += 1
                continue
            pair = _line_up(other, wording, repaired=True)
            if pair is None or other["pair_id"] in ids:
                refused[NOT_ALIGNED if pair is None else TWICE] += 1
                continue
            ids.add(other["pair_id"])
        prepared.append(pair)
    return prepared, refused


def _line_up(row: Mapping[str, Any], wording: Wording, *, repaired: bool) -> PreparedPair | None:
    """The pair in tokens, or None when its lists take different positions."""
    clean, corrupted, *controls = (
        wording.tokens(row["category"], row[f"{name}_words"]) if row[f"{name}_words"] else None
        for name in LISTS
    )
    assert clean is not None
    assert corrupted is not None
    if any(other is not None and not _aligned(clean, other) for other in (corrupted, *controls)):
        return None
    return PreparedPair(row, clean, corrupted, controls[0], controls[1], repaired)


def _aligned(a: PromptTokens, b: PromptTokens) -> bool:
    return len(a.ids) == len(b.ids) and a.word_positions == b.word_positions


def tail_length(pairs: Sequence[PreparedPair]) -> int:
    """Tokens after the last list word that all pairs have, the answer's included; at most
    `LONGEST_TAIL` before it."""
    after = min(len(pair.clean.ids) - 1 - pair.clean.word_positions[-1][-1] for pair in pairs)
    return max(1, min(after, LONGEST_TAIL + 1))


def minimal_slots(pair: PreparedPair, n_tail: int) -> dict[str, list[int] | None]:
    """Named places of a minimal pair, in reading order; None where the pair has no such place.

    item: the swapped word; item+j: the j-th word after it; later_items: everything from there
    to the list's last word; tail-j: the j-th token from the end; answer: the last token.
    """
    words, p = pair.clean.word_positions, pair.position
    slots: dict[str, list[int] | None] = {"item": list(words[p])}
    for j in range(1, NEXT_WORDS + 1):
        slots[f"item+{j}"] = list(words[p + j]) if p + j < len(words) else None
    slots["later_items"] = list(range(words[p][-1] + 1, words[-1][-1] + 1)) or None
    return {**slots, **_tail_slots(pair, n_tail)}


def random_slots(pair: PreparedPair, n_tail: int) -> dict[str, list[int] | None]:
    """Named places of a random pair, which has no swapped word: the whole list and the tail.

    words: from the first word's first token to the last word's last.
    """
    words = pair.clean.word_positions
    return {
        "words": list(range(words[0][0], words[-1][-1] + 1)),
        **_tail_slots(pair, n_tail),
    }


def _tail_slots(pair: PreparedPair, n_tail: int) -> dict[str, list[int] | None]:
    last = pair.clean.answer_position
    slots: dict[str, list[int] | None] = {f"tail-{j}": [last - j] for j in range(n_tail - 1, 0, -1)}
    return {**slots, "answer": [last]}


def prefix_slots(pair: PreparedPair, window: int) -> dict[str, list[int] | None]:
    """Named places of a prefix pair, k being the first word that both lists share.

    site: word k alone; window: words k to k+window−1; far: the words after these, to the last;
    suffix: words k to the last, all that lies between them included; prefix: the words before k.
    far is None where the window reaches the list's end. A state that merely copies the last few
    words can move the answer from the window, but not from far.
    """
    words, k = pair.clean.word_positions, pair.position
    beyond = k + window
    last = words[-1][-1]
    return {
        "prefix": list(range(words[0][0], words[k - 1][-1] + 1)),
        "site": list(words[k]),
        "window": list(range(words[k][0], words[min(beyond, len(words)) - 1][-1] + 1)),
        "far": list(range(words[beyond][0], last + 1)) if beyond < len(words) else None,
        "suffix": list(range(words[k][0], last + 1)),
    }
