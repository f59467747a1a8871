"""Byte-level tokenizer without merges: a known word is one token, anything else falls to bytes."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
N_BYTES = 256
SINGLE_TOKEN_NUMBERS = range(100)


def _pre_tokenizer() -> pre_tokenizers.ByteLevel:
    # Offsets keep the leading space so that a token's span is what it stands for.
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)


def vocabulary(words: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Byte-level symbols, then every piece of `texts` and every word with and without its space.

    Order: special tokens, bytes, then sorted pieces, so the ids depend on the content alone.
    """
    split = _pre_tokenizer().pre_tokenize_str
    pieces: set[str] = set()
    for text in texts:
        pieces.update(piece for piece, _ in split(text))
    for word in (*words, *(str(number) for number in SINGLE_TOKEN_NUMBERS)):
        for text in (word, f" {word}"):
            pieces.update(piece for piece, _ in split(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [PAD, EOS, *alphabet, *sorted(pieces - set(alphabet))]


def build_tokenizer(words: Iterable[str], texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer in which each word of `words` and each piece of `texts` is one token.

    A misspelt or unknown word is encoded by its bytes, so a typo truly changes the input.
    No token is added at the beginning of a text.
    """
    symbols = vocabulary(words, texts)
    backend = Tokenizer(
        models.BPE(
            vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[], ignore_merges=True
        )
    )
    backend.pre_tokenizer = _pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def spaced_twins(tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, int]]:
    """Ids of (word without space, word with leading space) for every word that has both."""
    vocab = tokenizer.get_vocab()
    return sorted(
        (index, vocab[f"Ġ{symbol}"])
        for symbol, index in vocab.items()
        if len(symbol) > 1 and f"Ġ{symbol}" in vocab
    )


def token_id(tokenizer: PreTrainedTokenizerFast, symbol: str) -> int:
    """Id of one symbol of the vocabulary; KeyError if it has none."""
    return tokenizer.get_vocab()[symbol]
