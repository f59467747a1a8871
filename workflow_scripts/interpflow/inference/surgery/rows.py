"""Items and documents as rows of tokens with the places that are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interpflow.inference.joined_tokens import joined_tokens
from interpflow.models.tokens import encode_all, special_prefix

# Why an item or a document has no score: its answer tokenises to nothing; its answer's beginning
# merges with the end of the prompt; the prompt has no token; it does not fit into the model's
# context; the document has no token that is predicted from another one.
Reason = Literal["", "empty_answer", "merged", "empty_prompt", "too_long", "too_short"]
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True)
class ScoredRow:
    """Tokens that are run, the positions that are read, and the token that follows each of them.

    targets[i] is the token that the logits at places[i] are scored on. prompt: number of tokens
    before the answer; of a document, of those before the first token that is scored.
    """

    item_id: str
    tokens: tuple[int, ...]
    places: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def prompt(self) -> int:
        return self.places[0] + 1


@dataclass(frozen=True)
class Rows:
    """Rows of items by id, in the order given, and the reason for each item that has none."""

    rows: Mapping[str, ScoredRow]
    unscored: Mapping[str, Reason]


def answer_rows(tokenizer: Any, items: Sequence[Mapping[str, Any]], context: int | None) -> Rows:
    """Prompt and answer of task items, tokenised together; all tokens of the answer are scored.

    items: mappings with example_id, prompt and answer. context: positions of the model.
    """
    pairs = [(item["prompt"], item["answer"]) for item in items]
    answers = dict.fromkeys(item["answer"] for item in items)
    n_special = len(special_prefix(tokenizer))
    empty = {
        encoded.text
        for encoded in encode_all(tokenizer, list(answers))
        if len(encoded.ids) <= n_special
    }
    rows: dict[str, ScoredRow] = {}
    unscored: dict[str, Reason] = {}
    for item, joined in zip(items, joined_tokens(tokenizer, pairs, context)):
        name = item["example_id"]
        if joined.unscored:
            nothing = joined.unscored == "merged" and item["answer"] in empty
            unscored[name] = "empty_answer" if nothing else _reason(joined.unscored)
            continue
        first, answer = len(joined.prompt) - 1, joined.continuation
        # What comes after the last scored place is not run.
        tokens = (*joined.prompt, *answer[:-1])
        rows[name] = ScoredRow(name, tokens, tuple(range(first, len(tokens))), answer)
    return Rows(rows, unscored)


def text_rows(
    tokenizer: Any, texts: Sequence[Mapping[str, Any]], max_tokens: int, context: int | None
) -> Rows:
    """Documents cut after `max_tokens` tokens of their own. The first is not scored, since nothing
    of the document stands before it.

    texts: mappings with document_id and text.
    """
    n_special = len(special_prefix(tokenizer))
    kept = n_special + max_tokens
    rows: dict[str, ScoredRow] = {}
    unscored: dict[str, Reason] = {}
    for text, encoded in zip(texts, encode_all(tokenizer, [each["text"] for each in texts])):
        name, ids = text["document_id"], encoded.ids[: min(kept, context or kept)]
        if len(ids) < n_special + 2:
            unscored[name] = "too_short"
            continue
        places = tuple(range(n_special, len(ids) - 1))
        rows[name] = ScoredRow(name, ids[:-1], places, tuple(ids[n_special + 1 :]))
    return Rows(rows, unscored)


def _reason(found: str) -> Reason:
    for reason in REASONS:
        if reason == found:
            return reason
    raise ValueError(f"an item cannot be unscored for {found!r}")
