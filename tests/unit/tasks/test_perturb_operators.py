"""Every operator does what its name says, and only that."""

from __future__ import annotations

import re
import string
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.tasks.perturbations.letters import NEAR_DIGITS, NEIGHBOURS
from interpflow.tasks.perturbations.operators import (
    CONTROL,
    NULL,
    OPERATORS,
    builtin_operators,
    operator_named,
)
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.text import (
    FAMILIES,
    PerturbedText,
    Rejected,
    SourceText,
    Span,
    rebuilt,
)
from interpflow.tasks.perturbations.touched_words import edit_distance
from interpflow.tasks.perturbations.word_lists import load_homophones, load_misspellings
from interpflow.tasks.perturbations.words import NEGATIONS, QUANTITIES, numbers_of

TEXT = (
    "Last week Anna bought 12 apples, and Ben received three more. "
    "On the way home Anna gives 7 apples to their neighbour.\nHow many does Anna have now?"
)
COUNTED = [name for name, known in OPERATORS.items() if known.counts_edits]


def spans_of(*words: str, text: str = TEXT) -> tuple[Span, ...]:
    return tuple(sorted(m.span() for w in words for m in re.finditer(rf"\b{w}\b", text)))


SOURCE = SourceText(
    TEXT,
    protected=spans_of("12", "7", "apples"),
    main=spans_of("bought", "received", "gives", "many"),
    other=spans_of("Last", "week", "On", "the", "way", "home", "neighbour", "now"),
)


def variant(operator: str, seed: int = 0, source: SourceText = SOURCE, **asked) -> PerturbedText:
    found = perturb(source, operator, seed=seed, example_id="a", **asked)
    assert isinstance(found, PerturbedText), found
    return found


def changes(found: PerturbedText, text: str = TEXT) -> list[tuple[str, str]]:
    return [
        (text[edit.start : edit.end], found.text[edit.new_start : edit.new_end])
        for edit in found.edits
    ]


def test_families_and_fixed_order() -> None:
    assert {known.family for known in OPERATORS.values()} <= set(FAMILIES)
    assert builtin_operators()[0] == "keyboard"
    assert set(OPERATORS) - set(builtin_operators()) == {NULL, CONTROL}
    assert [name for name in OPERATORS if OPERATORS[name].graded] == list(builtin_operators()[-6:])


def test_an_unknown_operator_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'keyboard'") as error:
        operator_named("keybord")
    assert error.value.where == "perturbations.operators"
    with pytest.raises(UserError, match="known: null, control, keyboard"):
        perturb(SOURCE, "xyzzy", seed=0, example_id="a")


@pytest.mark.parametrize("asked", [{"n_edits": 0}, {"rate": 0.0}, {"rate": 1.1}, {"strength": 4}])
def test_arguments_out_of_range_are_refused(asked: dict) -> None:
    with pytest.raises(ValueError, match="no edits of"):
        perturb(SOURCE, "keyboard", seed=0, example_id="a", **asked)


@pytest.mark.parametrize("seed", range(20))
def test_letter_operators(seed: int) -> None:
    for before, after in changes(variant("keyboard", seed)):
        assert after.lower() in NEIGHBOURS[before.lower()]
        assert before.isupper() == after.isupper()
    for before, after in changes(variant("transposition", seed)):
        assert len(before) == 2
        assert after == before[::-1] != before
    assert all(a and not b and len(a) == 1 for a, b in changes(variant("deletion", seed)))
    assert all(not a and len(b) == 1 for a, b in changes(variant("insertion", seed)))
    repeated = variant("repetition", seed)
    for edit in repeated.edits:
        letter = repeated.text[edit.new_start]
        assert letter == repeated.text[edit.new_start - 1].lower()
    for before, after in changes(variant("case", seed)):
        assert before != after
        assert before.lower() == after.lower()
    for before, after in changes(variant("ocr", seed)):
        assert (before + after).isalpha()


def test_transposition_never_exchanges_equal_letters() -> None:
    source = SourceText("aaaa bbbb wheee")
    for seed in range(50):
        found = perturb(source, "transposition", seed=seed, example_id="a", n_edits=1)
        assert isinstance(found, PerturbedText)
        assert found.text in ("aaaa bbbb wehee",)
    refused = perturb(source, "transposition", seed=0, example_id="a", n_edits=2)
    assert refused == Rejected("transposition", "too few words")


@pytest.mark.parametrize("seed", range(20))
def test_word_operators(seed: int) -> None:
    words = re.findall(r"[A-Za-z]+", TEXT)
    for before, _ in changes(variant("missing_word", seed)):
        assert before.strip() in words
    doubled = variant("doubled_word", seed, n_edits=1)
    (_, copy), start = changes(doubled)[0], doubled.edits[0].start
    assert TEXT[:start].endswith(copy.strip())
    assert doubled.text == TEXT[:start] + copy + TEXT[start:]
    swapped = variant("word_swap", seed, n_edits=1)
    (before, after), *_ = changes(swapped)
    assert after.split() == before.split()[::-1]
    split = variant("word_split", seed)
    assert [new for _, new in changes(split)] == [" ", " "]
    assert split.text.replace(" ", "") == TEXT.replace(" ", "")
    merged = variant("word_merge", seed)
    assert [old for old, _ in changes(merged)] == [" ", " "]
    assert len(merged.text) == len(TEXT) - 2
    for before, after in changes(variant("homophone", seed)):
        assert after.lower() in load_homophones()[before.lower()]
        assert before[0].isupper() == after[0].isupper()
    for before, after in changes(variant("misspelling", seed)):
        assert after.lower() in load_misspellings()[before.lower()]


@pytest.mark.parametrize("seed", range(20))
def test_marks_and_blanks(seed: int) -> None:
    letters = str.maketrans("", "", string.punctuation)
    assert variant("punctuation", seed).text.translate(letters).split() == (
        TEXT.translate(letters).split()
    ) or any(edit.operation == "insert_mark" for edit in variant("punctuation", seed).edits)
    spaced = variant("whitespace", seed).text
    assert re.sub(r"[ \t]", "", spaced) == re.sub(r"[ \t]", "", TEXT)


def test_obfuscation_looks_the_same() -> None:
    for before, after in changes(variant("homoglyph")):
        assert before.isascii()
        assert not after.isascii()
        assert len(before) == len(after) == 1
    hidden = variant("zero_width")
    assert re.sub("[\u200b\u200c\u200d\u2060\ufeff]", "", hidden.text) == TEXT != hidden.text


def test_null_and_what_has_too_few_words() -> None:
    assert variant(NULL) == PerturbedText(TEXT, NULL)
    assert perturb(SourceText(""), NULL, seed=0, example_id="a") == PerturbedText("", NULL)
    for operator in COUNTED:
        for text in ("", "  \n", "12 + 7 = ?", "not one"):
            found = perturb(SourceText(text), operator, seed=0, example_id="a", n_edits=1)
            assert found == Rejected(operator, "too few words")
    halved = SourceText("half a surrogate \ud800 pair")
    assert perturb(halved, "keyboard", seed=0, example_id="a") == (
        Rejected("keyboard", "invalid Unicode")
    )


@pytest.mark.parametrize("operator", COUNTED)
@pytest.mark.parametrize("placement", ["any", "main", "other"])
def test_doses_are_nested(operator: str, placement) -> None:
    for seed in range(10):
        doses = []
        for n in (1, 2, 3):
            found = perturb(
                SOURCE, operator, seed=seed, example_id="a", n_edits=n, placement=placement
            )
            if isinstance(found, PerturbedText):
                assert found.n_edits == n
                doses.append({(e.operation, e.start, e.end, new) for e, (_, new) in zip(
                    found.edits, changes(found), strict=True)})  # fmt: skip
        assert all(less < more for less, more in pairwise(doses))


def test_a_rate_is_a_share_of_the_words() -> None:
    # 15 words of four letters and more that are neither number nor protected; of the counts in
    # between, those of lower rates are among those of higher ones.
    counts = [variant("keyboard", rate=rate).n_edits for rate in (0.01, 0.2, 0.5, 1.0)]
    assert counts == [1, 3, 8, 15]


@pytest.mark.parametrize("operator", [n for n in COUNTED if OPERATORS[n].takes_placement])
def test_placement(operator: str) -> None:
    for placement, spans in (("main", SOURCE.main), ("other", SOURCE.other)):
        for seed in range(10):
            found = perturb(
                SOURCE, operator, seed=seed, example_id="a", n_edits=1, placement=placement
            )
            if isinstance(found, PerturbedText):
                edit = found.edits[0]
                assert any(edit.start <= end and start <= edit.end for start, end in spans)


def test_short_words_are_edited_last() -> None:
    source = SourceText("a cat sat on the warm mat")
    assert {changes(variant("deletion", s, source, n_edits=1), source.text)[0][0]
            for s in range(30)} <= set("arm")  # fmt: skip
    assert len(variant("deletion", 0, source, n_edits=4).edits) == 4


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_the_control_mirrors_the_edits_of_main_words(seed: int, n: int) -> None:
    typo = variant("keyboard", seed, n_edits=n, placement="main")
    control = variant(CONTROL, seed, n_edits=n)
    assert control.n_edits == typo.n_edits == n
    assert [edit.operation for edit in control.edits] == ["keyboard"] * n
    assert edit_distance(TEXT, control.text) == edit_distance(TEXT, typo.text) == n
    for edit in control.edits:
        assert any(start <= edit.start and edit.end <= end for start, end in SOURCE.other)


def test_the_control_finds_words_where_there_are_few_kinds() -> None:
    # One main word: the second target is any word; no `other` words: any that are not main.
    text = "Carla carefully collects colourful stamps"
    source = SourceText(text, main=spans_of("collects", text=text))
    for seed in range(20):
        found = variant(CONTROL, seed, source)
        assert found.n_edits == 2
        assert "collects" in found.text


def test_protected_words_are_edited_when_asked() -> None:
    source = SourceText("12 and 7", protected=((0, 2),))
    edited = {
        variant("keyboard", seed, source, n_edits=2, edit_protected=True).text for seed in range(40)
    }
    assert any(numbers_of(text) != ["12", "7"] for text in edited)
    assert all(digit in string.digits for near in NEAR_DIGITS.values() for digit in near)
    for seed in range(40):
        kept = variant("keyboard", seed, source, n_edits=1)
        assert kept.text.startswith("12 ")
        assert kept.text.endswith(" 7")


def test_no_edit_makes_a_number_or_negation() -> None:
    # Each is one edit away from a number word, a negation, or the protected word.
    cases = {
        "deletion": "note fourt tenn noone stamps",
        "word_split": "nonsense tenants someone forten",
        "homophone": "won ate to for knot know none",
        "transposition": "ffuor tow nto noen sxi",
    }
    source_words = {*QUANTITIES, *NEGATIONS, "stamp"}
    for operator, text in cases.items():
        source = SourceText(f"{text} stamp", protected=((len(text) + 1, len(text) + 6),))
        before = {w for w in re.findall(r"\w+", source.text.lower()) if w in source_words}
        for seed in range(200):
            found = perturb(source, operator, seed=seed, example_id="a", n_edits=1)
            if isinstance(found, PerturbedText):
                after = [w for w in re.findall(r"\w+", found.text.lower()) if w in source_words]
                assert sorted(after) == sorted(before)


@given(
    st.text(max_size=80),
    st.sampled_from(tuple(OPERATORS)),
    st.integers(0, 100),
    st.integers(1, 3),
)
@settings(max_examples=400, deadline=None)
def test_any_text_gives_a_variant_or_a_reason(text: str, name: str, seed: int, n: int) -> None:
    source = SourceText(text)
    found = perturb(source, name, seed=seed, example_id="a", n_edits=n, strength=n)
    again = perturb(source, name, seed=seed, example_id="a", n_edits=n, strength=n)
    assert found == again
    if isinstance(found, PerturbedText):
        assert (found.text != text) == (name != NULL)
        found.text.encode()
        edits = [
            (e.operation, e.start, e.end, found.text[e.new_start : e.new_end]) for e in found.edits
        ]
        assert rebuilt(text, edits, name) == found


def test_what_a_variant_depends_on() -> None:
    base = variant("keyboard")
    others = [
        variant("keyboard", 1),
        variant("keyboard", variant=1),
        variant("keyboard", placement="other"),
        perturb(SOURCE, "keyboard", seed=0, example_id="b"),
    ]
    assert all(other != base for other in others)
    # Not on arguments that the operator does not take.
    assert variant("polite", placement="main", n_edits=3) == variant("polite")
    assert variant(CONTROL, placement="main") == variant(CONTROL)
