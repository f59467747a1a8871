"""Pairs differ in one thing only, and the independent check notices when they do not."""

from collections import Counter

import pytest

from interpflow.errors import UserError
from interpflow.studies.counting.generation import example_rows, pair_rows
from interpflow.tasks.counting.check import check_example, check_pair
from interpflow.tasks.counting.design import make_example
from interpflow.tasks.counting.lexicon import lexicon_from_lists, load_lexicon
from interpflow.tasks.counting.pairs import PairDesign, make_pairs
from interpflow.tasks.counting.prompts import load_templates

LEXICON = load_lexicon()
DESIGN = PairDesign(
    categories=LEXICON.categories,
    lengths=(4, 6, 9),
    template_ids=("parentheses", "question"),
    n_minimal=240,
    n_prefix=240,
    n_random=40,
    max_delta=3,
    seed=0,
)
PAIRS = make_pairs(DESIGN, LEXICON)


def of(kind):
    return [pair for pair in PAIRS if pair.kind == kind]


def test_all_pairs_pass_the_independent_check():
    assert [check_pair(row, LEXICON) for row in pair_rows(PAIRS)] == [""] * len(PAIRS)
    assert Counter(pair.kind for pair in PAIRS) == {"minimal": 240, "prefix": 240, "random": 40}


def test_minimal_pairs_swap_words_alike_in_band_and_spelling_length():
    for pair in of("minimal"):
        word, other = pair.clean_words[pair.position], pair.corrupted_words[pair.position]
        assert LEXICON.frequency_band(word) == LEXICON.frequency_band(other)
        assert abs(len(word) - len(other)) <= 1
        assert pair.delta == 1


def test_slots_counts_and_signs_are_balanced():
    slots = Counter(pair.position for pair in of("minimal") if pair.length == 6)
    assert set(slots) == set(range(6))
    assert max(slots.values()) <= 2.5 * min(slots.values())
    signs = Counter(pair.delta > 0 for pair in of("prefix"))
    assert abs(signs[True] - signs[False]) <= 0.15 * len(of("prefix"))
    assert {abs(pair.delta) for pair in of("prefix")} == {1, 2, 3}
    categories = Counter(pair.category for pair in of("prefix"))
    assert set(categories) == set(LEXICON.categories)


def test_prefix_pairs_share_word_k_and_all_after_it():
    for pair in of("prefix"):
        k = pair.position
        assert pair.clean_words[k:] == pair.corrupted_words[k:] == pair.clean_control_words[k:]
        assert not set(pair.clean_words[:k]) & set(pair.clean_control_words[:k])


@pytest.mark.parametrize("kind", ["minimal", "prefix"])
def test_check_notices_a_changed_word(kind):
    row = next(row for row in pair_rows(PAIRS) if row["kind"] == kind)
    words = list(row["corrupted_words"])
    free = [w for w in LEXICON.members(row["category"]) if w not in words]
    last = len(words) - 1 if row["position"] != len(words) - 1 else 0
    words[last] = free[0]
    assert check_pair({**row, "corrupted_words": words}, LEXICON) != ""


def test_check_notices_a_wrong_label_count_and_span():
    templates = load_templates()
    words = (*LEXICON.members("fruit")[:2], LEXICON.non_members("fruit")[0])
    example = make_example("fruit", templates[0].id, words, (True, True, False), "systematic")
    row = example_rows([example], LEXICON, templates)[0]
    assert check_example(row, LEXICON) == ""
    wrong = [
        {"is_match": [True, False, False]},
        {"count": 1},
        {"running_count": [1, 1, 2]},
        {"word_starts": [0, 1, 2]},
        {"words": [words[0], words[0], words[2]]},
        {"match_positions": [0]},
        {"length": 4},
        {"answer": "7)"},
    ]
    assert all(check_example({**row, **change}, LEXICON) for change in wrong)


def test_lists_too_small_for_the_pairs_are_refused():
    lexicon = lexicon_from_lists({"fruit": ["fig", "pear"], "bird": ["owl", "hawk", "crow"]})
    design = PairDesign(("fruit",), (4,), ("parentheses",), 10, 0, 0, 2, 0)
    with pytest.raises(UserError, match="minimal pairs can be made"):
        make_pairs(design, lexicon)
