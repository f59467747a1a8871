"""Known words are one token in both forms; anything else is its bytes; files round-trip."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from interpflow.models.reference.material import CountingMaterial
from interpflow.models.reference.tokenizer import build_tokenizer, spaced_twins
from interpflow.tasks.counting.prompts import answer_text, load_templates, render


@pytest.fixture(scope="module")
def material() -> CountingMaterial:
    from interpflow.models.reference.recipe import recipe_of

    return CountingMaterial(recipe_of("count_parallel"))


def test_every_lexicon_word_and_number_is_one_token(material: CountingMaterial) -> None:
    encode = material.tokenizer.encode
    for word in (*material.corpus.lexicon.words, *(str(n) for n in range(100))):
        assert len(encode(word)) == 1, word
        assert len(encode(f" {word}")) == 1, word


def test_an_unknown_word_falls_to_bytes_and_decodes_back() -> None:
    tokenizer = build_tokenizer(["apple"], ["a text."])
    assert len(tokenizer.encode(" appel")) == len(" appel")
    for text in (" appel", "naïve 3 ☃\n\n x", "apple apple. 100"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_saved_tokenizer_gives_the_same_ids(material: CountingMaterial, tmp_path: Path) -> None:
    material.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    category = material.corpus.lexicon.categories[0]
    words = material.corpus.lexicon.members(category)[:3]
    for template in load_templates():
        text = render(template, material.corpus.lexicon, category, words).text + "3) xyzzy é"
        assert loaded(text)["input_ids"] == material.tokenizer(text)["input_ids"]


def test_prompt_tokens_are_a_prefix_of_prompt_and_answer(material: CountingMaterial) -> None:
    lexicon, encode = material.corpus.lexicon, material.tokenizer.encode
    category = lexicon.categories[0]
    for template in material.corpus.templates:
        prompt = render(template, lexicon, category, lexicon.members(category)[:4]).text
        ids = encode(prompt)
        for count in (0, 9, 15):
            answer = answer_text(template, count)
            assert encode(prompt + answer) == ids + encode(answer), template.id


def test_twins_are_the_two_forms_of_a_word() -> None:
    tokenizer = build_tokenizer(["apple"], ["x"])
    pairs = {
        (tokenizer.decode([plain]), tokenizer.decode([spaced]))
        for plain, spaced in spaced_twins(tokenizer)
    }
    assert ("apple", " apple") in pairs
    assert all(spaced == f" {plain}" for plain, spaced in pairs)
