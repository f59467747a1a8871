"""Tokens of a prompt's end and an answer against the tokens of the whole text."""

from __future__ import annotations

import random

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from interpflow.errors import UserError
from interpflow.models import token_cuts, tokens
from interpflow.models.token_cuts import TokenCuts
from interpflow.models.tokens import prompts_with_answers

SPLIT_LIKE_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_LIKE_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
ATOMS = [
    *("a", "an", "ann", "b", "ban", "na", "A", "1", "12", "123", "x7"),
    *(" ", " ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0"),
    *(",", ".", "(", ")", ":", "'s", "'", "n't", "/", "-", "é", "e\u0301", "\u0301", "😀", "漢字"),
    *("▁", "Ġ", "ﬁ", "İ", "<s>", "[X]"),
]


def text_of(rng: random.Random, most: int) -> str:
    return "".join(rng.choice(ATOMS) for _ in range(rng.randint(1, most)))


def corpus() -> list[str]:
    rng = random.Random(5)
    return [text_of(rng, 60) for _ in range(300)]


def trained(model, trainer, normalizer=None, pretokenizer=None) -> Tokenizer:
    backend = Tokenizer(model)
    if normalizer:
        backend.normalizer = normalizer
    if pretokenizer:
        backend.pre_tokenizer = pretokenizer
    backend.train_from_iterator(corpus(), trainer)
    return backend


def byte_bpe(*stages, size: int = 400) -> Tokenizer:
    pretokenizer = pre_tokenizers.Sequence(list(stages))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=alphabet, special_tokens=["<s>"]
    )
    return trained(models.BPE(), trainer, None, pretokenizer)


def split(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def whole_text_bpe(legacy: bool) -> Tokenizer:
    """Merges within words, learnt with a splitter that is then taken away."""
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=["<s>"])
    backend = trained(
        models.BPE(unk_token="<s>", fuse_unk=True), trainer, None, pre_tokenizers.Metaspace()
    )
    if legacy:
        marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(marks)
        backend.pre_tokenizer = None  # type: ignore[assignment]
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False, prepend_scheme="first")
    return backend


def word_pieces() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, show_progress=False, special_tokens=["[UNK]"]
    )
    return trained(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )


def unigram(pretokenizer) -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=200, show_progress=False, special_tokens=["[UNK]"], unk_token="[UNK]"
    )
    return trained(models.Unigram(), trainer, normalizers.NFKC(), pretokenizer)


def words() -> Tokenizer:
    trainer = trainers.WordLevelTrainer(show_progress=False, special_tokens=["[UNK]"])
    return trained(
        models.WordLevel(unk_token="[UNK]"), trainer, None, pre_tokenizers.WhitespaceSplit()
    )


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PROMISED = {
    "gpt2": lambda: byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2, a space in front": lambda: byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "llama3": lambda: byte_bpe(split(SPLIT_LIKE_LLAMA3), BYTES),
    "o200k": lambda: byte_bpe(split(SPLIT_LIKE_O200K), BYTES),
    "digits, then gpt2": lambda: byte_bpe(
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ),
    "llama2": lambda: whole_text_bpe(legacy=True),
    "metaspace, whole": lambda: whole_text_bpe(legacy=False),
    "metaspace unigram": lambda: unigram(pre_tokenizers.Metaspace()),
    "t5": lambda: unigram(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    ),
    "word pieces": word_pieces,
    "words": words,
}


def reaching() -> Tokenizer:
    backend = PROMISED["gpt2"]()
    backend.add_tokens([AddedToken("an ban", normalized=False)])
    return backend


NOT_PROMISED = {
    "merges over spaces": lambda: byte_bpe(BYTES),
    "two words at once": lambda: byte_bpe(split(r"\w+ \w+"), BYTES),
    "bytes first": lambda: byte_bpe(BYTES, split(SPLIT_LIKE_LLAMA3)),
    "whole text unigram": lambda: unigram(pre_tokenizers.Metaspace(split=False)),
    "added token over a space": reaching,
}


def fast(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def check_random_texts(tokenizer: PreTrainedTokenizerFast, n: int = 400) -> tuple[int, int]:
    """(pairs that are continuations, pairs that are not), each as tokenizing the whole says."""
    rng = random.Random(11)
    prompts = [text_of(rng, 14) for _ in range(n)]
    answers = [" an", " b 1", "a", ")", " ", " x7)", "12", " (", "'s", "\n"]
    joins = apart = 0
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        for answer in answers:
            whole = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
            joined = whole[: len(ids)] == ids and len(whole) > len(ids)
            joins, apart = joins + joined, apart + (not joined)
            try:
                found = prompts_with_answers(tokenizer, [prompt], [answer])
            except UserError:
                assert not joined, (prompt, answer)
            else:
                assert joined, (prompt, answer)
                assert found == ([ids], [[whole[len(ids) :]]]), (prompt, answer)
    return joins, apart


@pytest.mark.parametrize("kind", PROMISED)
def test_what_is_promised_holds(kind):
    tokenizer = fast(PROMISED[kind]())
    assert TokenCuts(tokenizer).allowed
    joins, _ = check_random_texts(tokenizer)
    assert joins > 1000


@pytest.mark.parametrize("kind", NOT_PROMISED)
def test_other_tokenizers_read_the_whole(kind):
    tokenizer = fast(NOT_PROMISED[kind]())
    assert not TokenCuts(tokenizer).allowed
    check_random_texts(tokenizer, 100)


def test_a_broken_promise_would_be_seen(monkeypatch):
    monkeypatch.setattr(token_cuts, "_merges_keep_off", lambda _backend, _mark: True)
    tokenizer = fast(NOT_PROMISED["merges over spaces"]())
    assert TokenCuts(tokenizer).allowed
    with pytest.raises(AssertionError):
        check_random_texts(tokenizer)


def test_each_end_is_tokenized_once(monkeypatch):
    tokenizer = fast(PROMISED["gpt2"]())
    seen: list[str] = []
    former = tokens._ids
    monkeypatch.setattr(
        tokens, "_ids", lambda t, texts: former(t, [seen.append(x) or x for x in texts])
    )
    prompts = [f"na {n} ban: (" for n in range(50)] + [f"a {n}1 ban" for n in range(50)]
    ids, found = prompts_with_answers(tokenizer, prompts, [" an", " b"])
    assert len(seen) == 2 + 100 + 2 + 2  # answers, prompts, two ends, one of them with answers
    assert found[0] is found[49]
    assert found[50] is found[99]
    assert ids[7] == tokenizer(prompts[7])["input_ids"]


def test_cuts():
    cuts = TokenCuts(fast(PROMISED["gpt2"]()))
    assert cuts.last("one two, 3 (") == 3
    assert cuts.last("one  two") is None
    assert cuts.last(" two") is None
    assert cuts.last("éa b") == 2
    assert cuts.between("one", " two")
    assert not any(cuts.between(*pair) for pair in (("one ", "two"), ("one,", " two"), ("", " t")))
