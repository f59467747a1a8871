"""The factorial design: every cell filled, truth plain, use balanced, mistakes refused."""

from collections import Counter

import pytest

from interpflow.errors import UserError
from interpflow.tasks.counting.design import FactorialDesign, factorial_examples
from interpflow.tasks.counting.lexicon import lexicon_from_lists, load_lexicon

LEXICON = load_lexicon()


def design(**changes):
    settings = {
        "categories": ("fruit", "bird", "vehicle"),
        "lengths": (3, 5, 8),
        "counts": None,
        "template_ids": ("a", "b"),
        "crossed_templates": False,
        "replicates": 2,
        "max_similarity": 0.8,
        "seed": 0,
    }
    return FactorialDesign(**(settings | changes))


def test_every_cell_is_filled_equally():
    examples = factorial_examples(design(), LEXICON)
    cells = Counter((e.category, e.length, e.count) for e in examples)
    assert set(cells) == set(design().cells())
    assert set(cells.values()) == {2}
    assert {count for _, length, count in cells if length == 8} == set(range(9))


def test_truth_follows_from_the_lexicon_and_no_word_is_ambiguous():
    for example in factorial_examples(design(), LEXICON):
        truth = [example.category in LEXICON.categories_of(word) for word in example.words]
        assert truth == list(example.is_match)
        assert not any(LEXICON.is_ambiguous(word) for word in example.words)
        assert example.running_count[-1] == example.count == len(example.match_positions)
        assert len(set(example.words)) == example.length


def test_match_positions_are_balanced_within_a_length():
    used = Counter()
    for example in factorial_examples(design(replicates=4), LEXICON):
        if example.length == 8:
            used.update(example.match_positions)
    assert max(used.values()) - min(used.values()) <= 1


def test_words_are_used_evenly():
    examples = factorial_examples(design(replicates=4), LEXICON)
    fruit = Counter(word for e in examples for word in e.words)
    uses = [fruit[word] for word in LEXICON.members("fruit")]
    assert max(uses) <= 2 * (sum(uses) / len(uses)) + 2


def test_lists_of_a_category_stay_below_the_similarity_bound():
    examples = factorial_examples(design(max_similarity=0.3), LEXICON)
    sets = [frozenset(e.words) for e in examples if e.category == "bird"]
    worst = max(len(a & b) / len(a | b) for i, a in enumerate(sets) for b in sets[:i])
    assert worst <= 0.3


def test_crossed_wordings_share_the_base_list():
    examples = factorial_examples(design(crossed_templates=True), LEXICON)
    families = Counter(e.family_id for e in examples)
    assert set(families.values()) == {2}
    assert len({e.example_id for e in examples}) == len(examples)


def test_latin_wordings_are_not_tied_to_a_factor():
    examples = factorial_examples(design(), LEXICON)
    per_category = Counter((e.category, e.template_id) for e in examples)
    assert max(per_category.values()) - min(per_category.values()) <= 2


def test_the_seed_decides_everything():
    same = factorial_examples(design(), LEXICON), factorial_examples(design(), LEXICON)
    assert same[0] == same[1]
    assert factorial_examples(design(seed=1), LEXICON) != same[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"categories": ("frut",)}, "frut"),
        ({"lengths": (200,), "counts": (200,)}, "unambiguous words"),
        ({"lengths": (3,), "replicates": 400, "max_similarity": 0.0}, "differs enough"),
    ],
)
def test_impossible_designs_are_refused_by_name(changes, named):
    with pytest.raises(UserError, match=named):
        factorial_examples(design(**changes), LEXICON)


def test_too_few_non_members_are_refused():
    lexicon = lexicon_from_lists({"fruit": [f"f{i}" for i in range(20)], "bird": ["b1", "b2"]})
    with pytest.raises(UserError, match="non-members"):
        factorial_examples(design(categories=("fruit",)), lexicon)
