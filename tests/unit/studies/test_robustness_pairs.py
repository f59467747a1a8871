"""Damaged pairs: which tokens of a perturbed prompt stand for which of the clean one."""

from __future__ import annotations

from typing import Any

import planted_damage as planted
import pytest

from interpflow.models.tokens import encode
from interpflow.studies.robustness.data.cells import Cell
from interpflow.studies.robustness.patches.pairs import SLOTS, DamagedPair, damaged_pairs
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.perturbations.text import PerturbedText, rebuilt

OPERATORS = ("keyboard", "transposition", "deletion", "insertion", "repetition", "missing_word",
             "doubled_word", "word_swap", "word_split", "word_merge", "case", "punctuation",
             "whitespace", "homoglyph", "zero_width", "polite", "terse", "verbose")  # fmt: skip
ITEMS = planted.items(12)


def made(*operators: str, n_edits: int = 1, placement: Any = "any", **kinds: bool):
    tokens = planted.tokenizer(**kinds)
    rows = planted.examples(ITEMS, operators, placement=placement, n_edits=n_edits)
    return tokens, rows, planted.pairs_of(rows, tokens)


def one(edits: list[tuple[str, int, int, str]], text: str, around=planted.FRAME, **kinds: bool):
    """The pair of a text and its edits (operation, start, end, new characters)."""
    tokens = planted.tokenizer(**kinds)
    item = planted.items(1)[0]
    item = type(item)(**{**vars(item), "question": planted.SourceText(text)})
    new = rebuilt(text, edits, "keyboard")
    rows = [
        planted.example(item, Cell("clean", "clean"), PerturbedText(text, "clean"), around),
        planted.example(item, Cell("typo", "keyboard"), new, around),
    ]
    (pair,) = planted.pairs_of({row["example_id"]: row for row in rows}, tokens)
    return tokens, pair


def outside(tokens: Any, side: Any) -> list[int]:
    """Prompt tokens of no edited word, without bare blanks: a blank is a token of its own before
    bytes, part of a known word, and may itself be what was put in."""
    words = {p for word in side.edited_span for p in word}
    return [p for p in range(side.n_prompt)
            if p not in words and tokens.decode([side.ids[p]]).strip(" \t")]  # fmt: skip


def texts(tokens: Any, pair: DamagedPair, side: str, places: list[int] | None) -> list[str]:
    ids = getattr(pair, side).ids
    return [tokens.decode([ids[p]]) for p in places or []]


@pytest.mark.parametrize("kinds", [{}, {"bos": True}, {"chat": True}, {"bos": True, "chat": True}],
                         ids=["plain", "bos", "chat", "bos and chat"])  # fmt: skip
def test_untouched_tokens_stand_for_each_other_and_edited_words_by_their_last(kinds):
    tokens, rows, pairs = made(*OPERATORS, n_edits=2, **kinds)
    assert {pair.row["operator"] for pair in pairs} >= {*OPERATORS} - {"punctuation", "terse"}
    lengths = set()
    for pair in pairs:
        mine, theirs = pair.perturbed, pair.clean
        assert mine.ids == encode(tokens, planted.text_of(rows[pair.row["example_id"]], tokens)).ids
        lengths.add(len(mine.ids) - len(theirs.ids))
        table = pair.donor_of
        # Without the edited words both prompts are the same tokens, in the same order.
        untouched = list(zip(outside(tokens, mine), outside(tokens, theirs), strict=True))
        for p, c in untouched:
            assert mine.ids[p] == theirs.ids[c]
            assert table[p] == c
        for word, clean_word in zip(mine.edited_span, theirs.edited_span, strict=True):
            assert table[word[-1]] == clean_word[-1]
        donors = [c for c in table if c >= 0]
        assert len(donors) == len(set(donors)), "one to one"
        assert table[mine.n_prompt - 1] == theirs.n_prompt - 1
        # Reversed twice, the table is itself.
        back = pair.reversed_table()
        assert [(p, c) for p, c in enumerate(table) if c >= 0] == sorted(
            (p, c) for c, p in enumerate(back) if p >= 0
        )
    assert min(lengths) < 0 < max(lengths), "words split into bytes, and words left out"


def test_a_substitution_makes_bytes_whose_last_stands_for_the_word():
    tokens, pair = one([("substitute", 6, 7, "x")], "Anna finds 3 red apples")
    assert pair.alignment == "edited"
    (word,), (clean_word,) = pair.perturbed.edited_span, pair.clean.edited_span
    assert texts(tokens, pair, "clean", list(clean_word)) == [" finds"]
    assert (
        texts(tokens, pair, "perturbed", list(word)) == [" ", "f", "x", "n", "d", "s"][-len(word) :]
    )
    slots = pair.slots(clean=False)
    assert slots["edited"] == [word[-1]]
    assert slots["edited_span"] == list(word)
    assert {pair.donor_table(clean=False)[p] for p in word} == {clean_word[0]}
    assert (
        pair.slots(clean=True)["edited"] == pair.slots(clean=True)["edited_span"] == [clean_word[0]]
    )
    assert pair.role_of(word[0]) == "edited"


@pytest.mark.parametrize(
    ("edits", "clean_word", "word"),
    [
        ([("missing_word", 13, 17, "")], " red apples", " apples"),
        ([("doubled_word", 13, 13, "red ")], " red", " red red"),
        ([("word_split", 8, 8, " ")], " finds", " fin ds"),
        ([("word_merge", 10, 11, "")], " finds 3", " finds3"),
        ([("transposition", 6, 8, "ni")], " finds", " fnids"),
        ([("repetition", 10, 10, "s")], " finds", " findss"),
    ],
)
def test_words_left_out_doubled_split_and_merged(edits, clean_word, word):
    tokens, pair = one(edits, "Anna finds 3 red apples today")
    spans = pair.perturbed.edited_span, pair.clean.edited_span
    shown = ["".join(texts(tokens, pair, side, list(span[0])))
             for side, span in zip(("perturbed", "clean"), spans)]  # fmt: skip
    assert shown[1].strip() in clean_word
    assert shown[0].strip() in word
    assert pair.donor_of[spans[0][0][-1]] == spans[1][0][-1]
    assert [pair.perturbed.ids[p] for p in outside(tokens, pair.perturbed)] == [
        pair.clean.ids[p] for p in outside(tokens, pair.clean)
    ]


def test_slots_are_the_tokens_they_say():
    text = "Anna finds 3 red apples near 14 trees"
    edits = [("substitute", 6, 7, "x"), ("substitute", 18, 19, "q")]
    tokens, pair = one(edits, text)
    assert text[18] == "p", "the second edit is in the apples"
    slots = pair.slots(clean=True)
    shown = {name: texts(tokens, pair, "clean", places) for name, places in slots.items()}
    assert shown["edited"] == [" finds", " apples"]
    assert shown["numbers"] == [" 3", " 14"]
    assert shown["later"] == [" 3", " red", " near", " 14", " trees"]
    assert shown["answer"] == [":"]
    # The common sequence ":" of the frame's begin and its end is told apart by its place.
    assert "".join(shown["frame"]) == "Question:.\nAnswer"
    assert len(slots["all"] or []) == len(pair.clean.ids)
    counterparts = pair.slots(clean=False)
    for name in ("edited", "numbers", "later", "frame", "answer", "all"):
        back = [pair.donor_of[p] for p in counterparts[name] or []]
        assert back == slots[name], name
    assert [pair.role_of(p) for p in counterparts["numbers"] or []] == ["number", "number"]
    assert pair.role_of((counterparts["answer"] or [-1])[0]) == "answer"
    assert set(slots) == set(SLOTS)


def test_a_prompt_without_edited_words_or_numbers_has_no_such_slots():
    _, pair = one([("substitute", 0, 1, "H")], "Anna finds apples")
    assert pair.slots(clean=False)["numbers"] is None
    assert pair.slots(clean=False)["edited"] is not None


def test_pairs_of_equal_tokens_are_exact_and_their_places_the_same():
    _, _, pairs = made("word_swap")
    exact = [pair for pair in pairs if pair.alignment == "exact"]
    assert exact
    for pair in exact:
        assert pair.donor_of == tuple(range(len(pair.clean.ids)))
        assert pair.donor_table(clean=False) == pair.donor_table(clean=True) == list(pair.donor_of)
        assert pair.slots(clean=False) == pair.slots(clean=True)
    # As many tokens are not enough: here a byte is gone before the number and one comes after it.
    _, pair = one([("deletion", 1, 2, ""), ("insertion", 20, 20, "z")], "qwqw finds 3 red wqwqwq")
    assert len(pair.clean.ids) == len(pair.perturbed.ids)
    assert pair.alignment == "edited"


def test_bytes_of_one_character_in_an_untouched_word_are_aligned_each():
    tokens, pair = one([("substitute", 6, 7, "x")], "Anna finds 3 red cafés")
    both = [side.ids[-5:] for side in (pair.perturbed, pair.clean)]
    assert both[0] == both[1]
    (place,) = [i for i, token in enumerate(pair.clean.ids)
                if tokens.convert_ids_to_tokens(token) == "Ã"]  # fmt: skip
    assert place in pair.donor_of, "the first byte of é"
    assert place + 1 in pair.donor_of


def test_a_prompt_that_ends_in_an_edit_keeps_its_last_token_for_the_answer():
    edits = [("deletion", 22, 23, "")]  # the full stop
    tokens, pair = one(edits, "Anna finds 3 red apple.", around=("", ""))
    assert texts(tokens, pair, "clean", [pair.clean.n_prompt - 1]) == ["."]
    slots = pair.slots(clean=False)
    last = pair.perturbed.n_prompt - 1
    assert slots["answer"] == [last]
    assert pair.donor_of[last] == pair.clean.n_prompt - 1
    for name in ("edited", "edited_span", "numbers", "later", "frame"):
        assert last not in (slots[name] or []), name
    assert last in (slots["all"] or [])


def test_a_blank_behind_a_prompt_is_where_its_answer_is_read() -> None:
    text = "Anna finds 3 red apples"
    tokens, pair = one([("whitespace", len(text), len(text), " ")], text, around=("", ""))
    last = pair.perturbed.n_prompt - 1
    assert texts(tokens, pair, "perturbed", [last - 1, last]) == [" apples", " "]
    assert pair.donor_of[last] == pair.clean.n_prompt - 1
    assert pair.donor_of[last - 1] == -1
    assert pair.slots(clean=False)["answer"] == [last]
    assert pair.slots(clean=False)["edited"] is None


def two_rows() -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    tokens = planted.tokenizer()
    rows = planted.examples(planted.items(1), ["keyboard"])
    clean, variant = rows.values()
    return tokens, rows, clean, variant


def answered(clean_ids: list[int], ids: list[int], **changes: Any):
    tokens, rows, clean, variant = two_rows()
    answers = [planted.answer(clean, clean_ids, right=True),
               planted.answer(variant, ids, right=False) | changes]  # fmt: skip
    return tokens, *damaged_pairs(rows, answers, tokens, "auto", 10)


def test_the_metric_reads_the_first_token_where_the_answers_part():
    _, (pair,), left_out = answered([300, 301, 302], [300, 301, 299, 5])
    assert (pair.clean_token, pair.perturbed_token) == (302, 299)
    assert pair.clean.ids[pair.clean.n_prompt :] == (300, 301)
    assert pair.perturbed.ids[pair.perturbed.n_prompt :] == (300, 301)
    common = pair.slots(clean=False)["answer"] or []
    assert common == [pair.perturbed.n_prompt - 1 + k for k in range(3)]
    assert [pair.donor_of[p] for p in common] == pair.slots(clean=True)["answer"]
    assert left_out == {}


@pytest.mark.parametrize(("clean_ids", "ids"), [([300], [300, 301]), ([300, 301], [300])])
def test_an_answer_that_begins_the_other_is_told_by_its_end(clean_ids, ids):
    tokens, (pair,), _ = answered(clean_ids, ids)
    end = tokens.eos_token_id
    assert (pair.clean_token, pair.perturbed_token) == (
        (end, 301) if len(clean_ids) == 1 else (301, end)
    )
    assert pair.clean.ids[pair.clean.n_prompt :] == (300,)


def test_without_an_end_token_such_a_pair_is_refused():
    tokens, rows, clean, variant = two_rows()
    tokens.eos_token = None
    answers = [planted.answer(clean, [300], right=True),
               planted.answer(variant, [300, 301], right=False)]  # fmt: skip
    pairs, left_out = damaged_pairs(rows, answers, tokens, "auto", 10)
    assert pairs == []
    assert list(left_out.values()) == [1]
    assert "no end token" in next(iter(left_out))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accepted": False}, "meaning not kept"),
        ({"gold": "other"}, "another answer is right"),
        ({"strict_correct": True}, "answered right"),
        ({"strict_correct": None}, "no gold answer, or not answered"),
        ({"token_ids": [300]}, "same tokens, read otherwise"),
    ],
)
def test_what_is_no_damage_is_left_out_and_counted(changes, reason):
    _, pairs, left_out = answered([300], [301], **changes)
    assert pairs == []
    assert left_out == {reason: 1}


def test_operators_take_turns_and_the_rest_is_counted():
    tokens = planted.tokenizer()
    rows = planted.examples(ITEMS, ["keyboard", "deletion", "null"])
    answers = planted.claimed(rows, tokens)
    pairs, left_out = damaged_pairs(rows, answers, tokens, "auto", 7)
    operators = [pair.row["operator"] for pair in pairs]
    assert operators == ["deletion", "keyboard"] * 3 + ["deletion"]
    assert left_out == {"more pairs than asked for": 24 - 7}
    again, _ = damaged_pairs(rows, list(reversed(answers)), tokens, "auto", 7)
    assert [pair.pair_id for pair in again] == [pair.pair_id for pair in pairs]


def test_pairs_are_written_and_read_with_their_tables(tmp_path):
    _, _, pairs = made("keyboard", "word_swap")
    write_table(tmp_path / "pairs.parquet", "robustness_pairs", [p.to_row() for p in pairs])
    for row, pair in zip(read_rows(tmp_path / "pairs.parquet", "robustness_pairs"), pairs):
        assert dict(zip(row["aligned_perturbed"], row["aligned_clean"])) == {
            p: c for p, c in enumerate(pair.donor_of) if c >= 0
        }
        assert row["clean_ids"] == list(pair.clean.ids)
        assert row["alignment"] == pair.alignment
