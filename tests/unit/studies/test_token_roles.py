"""Roles of tokens follow the example's characters, whatever stands in front of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from interpflow.studies.robustness.answers.prompt_states import MAX_NUMBER_QUERIES, query_positions
from interpflow.studies.robustness.answers.token_roles import (
    PromptTokens,
    compared_words,
    kept_positions,
    prompt_tokens,
    role_columns,
)

QUESTION = "Ann buys 12 figs and 7 pears."
PROMPT = f"Question: {QUESTION}\nAnswer:"
WORDS = ("Question", "Answer", "Ann", "Ġbuys", "Ġand", "Ġpears", "Ġ12")


def tokenizer(bos: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    pieces = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *WORDS]
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    found = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    found.chat_template = template
    return found


def example(prompt: str = PROMPT, **spans: list[str]) -> dict[str, Any]:
    """A row whose spans are given by their texts."""
    row: dict[str, Any] = {"prompt": prompt, "question_start": 10}
    row["question_end"] = row["question_start"] + len(prompt) - len("Question: \nAnswer:")
    for kind in ("number", "control", "word"):
        starts = [prompt.index(text) for text in spans.get(kind, [])]
        row[f"{kind}_starts"] = starts
        row[f"{kind}_ends"] = [
            at + len(text) for at, text in zip(starts, spans.get(kind, []), strict=True)
        ]
    return row


ROW = example(number=["12", "7"], control=["pears"], word=["figs", "buys"])
CHAT = "{% for m in messages %}<s>User 7: {{ m.content }}{% endfor %} Model:"


def texts(tokens: PromptTokens, role: str) -> list[str]:
    return [
        ROW["prompt"][start:end]
        for start, end, found in zip(tokens.char_starts, tokens.char_ends, tokens.roles)
        if found == role
    ]


@pytest.mark.parametrize(
    ("bos", "template"), [(False, None), (True, None), (True, CHAT), (False, CHAT)]
)
def test_roles_are_the_same_with_bos_and_template(bos: bool, template: str | None) -> None:
    tokens = prompt_tokens(tokenizer(bos, template), [ROW], "auto")[0]
    assert "".join(texts(tokens, "edited")) == "buysfigs"
    assert texts(tokens, "control") == ["pears"]
    assert texts(tokens, "number") == ["12", "7"]
    assert "".join(texts(tokens, "question")).replace(" ", "") == "Annand."
    assert tokens.roles[-1] == "answer_start"
    assert tokens.roles.count("bos") == (bos and template is None)
    frame = "".join(texts(tokens, "frame"))
    assert frame.startswith("Question:")
    assert "Answer" in frame
    by_word = {
        number: "".join(
            PROMPT[start:end]
            for start, end, word, role in zip(
                tokens.char_starts, tokens.char_ends, tokens.words, tokens.roles
            )
            if word == number and role == "edited"
        )
        for number in (0, 1)
    }
    assert by_word == {0: "figs", 1: "buys"}
    assert {word for word, role in zip(tokens.words, tokens.roles)
            if role not in ("edited", "control")} == {-1}  # fmt: skip
    ends = [tokens.char_ends[at] for at in tokens.numbers]
    assert ends == [PROMPT.index("12") + 2, PROMPT.index("7") + 1]
    if template is not None:
        assert tokens.char_starts[0] == -1
        assert tokens.roles[0] == "frame"
        assert tokens.char_starts[-1] == -1


def test_what_was_edited_comes_before_what_it_was() -> None:
    row = example(number=["12", "7"], word=["12"])
    tokens = prompt_tokens(tokenizer(), [row], "auto")[0]
    assert texts(tokens, "number") == ["7"]
    assert texts(tokens, "edited") == ["12"]
    assert len(tokens.numbers) == 2, "a number all the same"


def test_a_deleted_word_has_no_token_and_characters_may_be_any() -> None:
    row = example("Question: Ann\u200b bu\u0443s 12 fi gs\nAnswer:", word=["fi gs"])
    row["word_starts"], row["word_ends"] = [*row["word_starts"], 14], [*row["word_ends"], 14]
    tokens = prompt_tokens(tokenizer(True), [row], "auto")[0]
    assert set(tokens.words) == {-1, 0}
    assert len(tokens.ids) == len(tokens.roles) == len(tokens.char_starts)


def test_words_that_variants_edit_are_kept_of_the_clean_prompt() -> None:
    clean = {"base_id": "b", "operator": "clean", "clean_word_starts": [], "clean_word_ends": [],
             "clean_control_starts": [], "clean_control_ends": []}  # fmt: skip
    one = clean | {"operator": "keyboard", "clean_word_starts": [10], "clean_word_ends": [13]}
    two = clean | {"operator": "case", "clean_control_starts": [20], "clean_control_ends": [24]}
    assert compared_words([clean, one, two]) == [[(10, 13), (20, 24)], [], []]


def test_kept_positions_and_columns() -> None:
    tokens = prompt_tokens(tokenizer(True), [ROW, example("Question: Ann\nAnswer:")], "never")
    assert kept_positions(tokens, "answer", [[], []]) == [[len(each.ids) - 1] for each in tokens]
    assert kept_positions(tokens, "all", [[], []])[1] == list(range(len(tokens[1].ids)))
    roles = kept_positions(tokens, "roles", [[], [(10, 13)]])
    ann = [at for at, start in enumerate(tokens[1].char_starts) if 10 <= start < 13]
    assert roles[1] == [0, *ann, len(tokens[1].ids) - 1]
    assert roles[0][0] == 0
    assert roles[0][-1] == len(tokens[0].ids) - 1
    columns = role_columns(tokens, roles)
    for i, places in enumerate(roles):
        assert columns["role"][i] == [tokens[i].roles[at] for at in places]
        assert columns["word"][i] == [tokens[i].words[at] for at in places]
        expected = [tokens[i].char_starts[at] for at in places]
        assert columns["char_start"][i] == [None if at < 0 else at for at in expected]
    assert [len(column) for column in columns.values()] == [2] * 4
    assert columns["word"].values.dtype == np.int32


def test_queries_are_the_answer_and_the_first_numbers() -> None:
    many = example("Question: " + " ".join(map(str, range(20, 31))) + "\nAnswer:",
                   number=[str(n) for n in range(20, 31)])  # fmt: skip
    tokens = prompt_tokens(tokenizer(), [ROW, many], "auto")
    queries = query_positions(tokens)
    assert len(queries) == 1 + MAX_NUMBER_QUERIES
    assert queries["answer"] == [len(each.ids) - 1 for each in tokens]
    assert queries["number1"][0] == tokens[0].numbers[1]
    assert queries["number2"][0] is None
    assert queries["number2"][1] == tokens[1].numbers[2]
