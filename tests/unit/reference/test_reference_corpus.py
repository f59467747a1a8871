"""Training material: labels are true, held-out lists are apart, scored spans are the answers."""

from __future__ import annotations

import random

from interpflow.models.reference.counting_corpus import CountingCorpus
from interpflow.models.reference.material import CountingMaterial
from interpflow.models.reference.rows import Row, encode_rows


def corpus_of(material: CountingMaterial) -> CountingCorpus:
    return material.corpus


def test_counts_follow_the_lexicon(small_material: CountingMaterial) -> None:
    corpus, rng = corpus_of(small_material), random.Random(0)
    for _ in range(50):
        drawn = corpus.draw_list(rng, held_out=False)
        members = corpus.lexicon.members(drawn.category)
        assert drawn.matches == tuple(word in members for word in drawn.words)
        assert len(set(drawn.words)) == len(drawn.words)


def test_training_never_draws_a_held_out_list(small_material: CountingMaterial) -> None:
    corpus, rng = corpus_of(small_material), random.Random(1)
    assert not any(corpus.draw_list(rng, held_out=False).held_out for _ in range(100))
    assert all(corpus.draw_list(rng, held_out=True).held_out for _ in range(20))
    pair = corpus.draw_pair(rng, held_out=True)
    assert pair.base.held_out
    assert pair.donor.held_out


def test_pairs_share_words_from_start_and_differ_in_count_before(
    small_material: CountingMaterial,
) -> None:
    corpus, rng = corpus_of(small_material), random.Random(2)
    for _ in range(50):
        pair = corpus.draw_pair(rng, held_out=False)
        assert pair.base.words[pair.start :] == pair.donor.words[pair.start :]
        before = [sum(side.matches[: pair.start]) for side in (pair.base, pair.donor)]
        assert pair.shift == before[1] - before[0] != 0
        assert 1 <= pair.start < len(pair.base.words)


def test_scored_tokens_are_the_answer_and_the_end(small_material: CountingMaterial) -> None:
    tokenizer = small_material.tokenizer
    rows = [Row.answering("Type: bird\nAnswer: (", "3)"), Row.answering("The number is", " 3.")]
    batch = encode_rows(rows, tokenizer)
    for index, answer in enumerate(("3)<eos>", " 3.<eos>")):
        assert tokenizer.decode(batch.target[batch.row == index]) == answer
    following = batch.ids[batch.row, batch.position + 1]
    assert following.tolist() == batch.target.tolist()


def test_word_labels_are_membership_and_running_count(small_material: CountingMaterial) -> None:
    corpus, rng = corpus_of(small_material), random.Random(3)
    drawn = corpus.draw_list(rng, held_out=False)
    for template in corpus.templates:
        batch = encode_rows([corpus.row(drawn, template, False)], small_material.tokenizer)
        tokens = batch.ids[0, batch.word_places[:, 1]]
        found = [str(small_material.tokenizer.decode([t])).strip() for t in tokens.tolist()]
        assert tuple(found) == drawn.words
        assert tuple(batch.word_labels[:, 0].bool().tolist()) == drawn.matches
        assert int(batch.word_labels[-1, 1]) == drawn.count


def test_drill_rows_score_the_category(small_material: CountingMaterial) -> None:
    rows = corpus_of(small_material).drill_rows(random.Random(4), 6)
    lexicon = corpus_of(small_material).lexicon
    names = set(lexicon.categories) | {lexicon.plural(c) for c in lexicon.categories}
    for row in rows:
        assert {row.text[start:end].strip() for start, end in row.scored} <= names
