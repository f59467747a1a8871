"""Where a text may be cut so that the tokens of its parts, put together, are those of the whole.

The place is a letter or digit followed by one space and a letter (ASCII all three). Whether every
tokenization of every text has a border there, in front of the space, follows from the parts of a
tokenizer: its normalizer changes each side by itself, its pre-tokenizer splits there (or no token
of its byte-pair encoding has a space after a letter or digit inside), and no added token reaches
across. Only parts that are known here count; for all others nothing is promised.
"""

from __future__ import annotations

import json
import re
from typing import Any

CUT = re.compile(r"(?<=[A-Za-z0-9]) (?=[A-Za-z])")
SPACE_MARK, BYTE_MARK = "▁", "Ġ"
# A cut in an added token, its space as texts or vocabularies have it.
CROSSING = re.compile(r"[A-Za-z0-9][ ▁Ġ]")

# Parts that change or split a character knowing at most its neighbours: to these a space between
# ASCII letters or digits is as good as the text's end.
LOCAL_NORMALIZERS = frozenset(
    ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer")
)
LOCAL_SPLITS = frozenset(("Digits", "Punctuation"))
SPLITS_AT_SPACES = frozenset(("BertPreTokenizer", "Whitespace", "WhitespaceSplit"))

# Alternatives of the regular expressions by which byte-level tokenizers split. No match of any of
# them has a letter or digit before a space, and none looks further than one character ahead.
LETTERS = frozenset(
    (
        r" ?\p{L}+",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    )
)
NUMBERS = frozenset((r" ?\p{N}+", r"\p{N}{1,3}", r"\p{N}+", r"\p{N}"))
SPACES = frozenset((r"\s+",))
OTHERS = frozenset(
    (
        "'s", "'t", "'re", "'ve", "'m", "'ll", "'d",
        r"'(?:[sdmt]|ll|ve|re)",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r" ?[^\s\p{L}\p{N}]+",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\s*[\r\n]+",
        r"\s*[\r\n]",
        r"\s+(?!\S)",
    )
)  # fmt: skip


class TokenCuts:
    """The cuts of one tokenizer; `allowed` is False where nothing is promised."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.own_space, self.allowed = True, False
        if backend is None:
            return
        normalizer = _parts(backend.normalizer, "normalizers")
        pretokenizer = _parts(backend.pre_tokenizer, "pretokenizers")
        if normalizer is None or pretokenizer is None or not _is_local(normalizer):
            return
        # A tokenizer that puts a space before every text gets what follows a cut without its own.
        self.own_space = not _prepends(normalizer)
        mark = SPACE_MARK if any(map(_is_space_mark, normalizer)) else " "
        self.allowed = _added_tokens_keep_off(backend) and _holds(pretokenizer, mark, backend)

    def last(self, text: str) -> int | None:
        """Where the last cut inside the text is (the index of its space), or None."""
        place = text.rfind(" ") if self.allowed else -1
        while place > 0:
            if CUT.match(text, place):
                return place
            place = text.rfind(" ", 0, place)
        return None

    def between(self, text: str, following: str) -> bool:
        """Whether there is a cut where one text ends and the other begins."""
        return self.allowed and CUT.match(text[-1:] + following[:2], 1) is not None

    def after(self, text: str, cut: int = 0) -> str:
        """What to tokenize for the part of a text from a cut on."""
        return text[cut if self.own_space else cut + 1 :]


def _parts(component: Any, name: str) -> list[dict[str, Any]] | None:
    """Settings of a normalizer or pre-tokenizer, sequences laid flat; None if not readable."""
    if component is None:
        return []
    try:
        return _flat(json.loads(component.__getstate__()), name)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # one that is written in Python


def _flat(settings: dict[str, Any], name: str) -> list[dict[str, Any]]:
    if settings["type"] != "Sequence":
        return [settings]
    return [part for inside in settings[name] for part in _flat(inside, name)]


def _is_local(normalizer: list[dict[str, Any]]) -> bool:
    prepends = _prepends(normalizer)
    known = all(
        part["type"] in LOCAL_NORMALIZERS or _is_space_mark(part) for part in normalizer[prepends:]
    )
    return known and (not prepends or any(map(_is_space_mark, normalizer)))


def _prepends(normalizer: list[dict[str, Any]]) -> bool:
    return normalizer[:1] == [{"type": "Prepend", "prepend": SPACE_MARK}]


def _is_space_mark(part: dict[str, Any]) -> bool:
    return part == {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}


def _holds(pretokenizer: list[dict[str, Any]], mark: str, backend: Any) -> bool:
    """Whether there is a border at every cut; `mark` is what a space is when splitting begins."""
    for part in pretokenizer:
        splits = _splits(part, mark)
        if splits is None:
            return False
        if splits:
            return True  # what comes later splits each piece by itself
        if part["type"] in ("ByteLevel", "Metaspace"):
            mark = BYTE_MARK if part["type"] == "ByteLevel" else SPACE_MARK
    return _merges_keep_off(backend, mark)


def _splits(part: dict[str, Any], mark: str) -> bool | None:
    """Whether a pre-tokenizer always splits at a cut; None if it may look further around it."""
    kind = part["type"]
    if kind in LOCAL_SPLITS:
        return False
    if kind == "Metaspace" and mark != BYTE_MARK:
        return part["replacement"] == SPACE_MARK and part["split"]
    if kind == "Split" and len(part["pattern"].get("String", "")) == 1:
        return False
    if mark != " ":
        return None
    if kind in SPLITS_AT_SPACES:
        return True
    if kind == "ByteLevel":
        return part["use_regex"]
    if kind == "Split" and "Regex" in part["pattern"]:
        keeps_matches = part["behavior"] == ("Removed" if part["invert"] else "Isolated")
        return True if keeps_matches and _is_known(part["pattern"]["Regex"]) else None
    return None


def _is_known(pattern: str) -> bool:
    """Whether a regular expression is made of known alternatives that match all of a text."""
    found = _alternatives(pattern)
    kinds = (LETTERS, NUMBERS, SPACES)
    return found <= LETTERS | NUMBERS | SPACES | OTHERS and all(found & kind for kind in kinds)


def _alternatives(pattern: str) -> set[str]:
    """The pattern cut at `|` outside parentheses."""
    found, depth, start = set(), 0, 0
    for place, sign in enumerate(pattern):
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and depth == 0:
            found.add(pattern[start:place])
            start = place + 1
    return found | {pattern[start:]}


def _merges_keep_off(backend: Any, mark: str) -> bool:
    """Whether a byte-pair encoding has no token with a space after a letter or digit: then no merge
    reaches across a cut, and the merges on one side do not change those on the other."""
    model = backend.model
    if type(model).__name__ != "BPE" or model.dropout:
        return False
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    # Unknown characters can be joined to one token, across a cut if the space is one of them.
    if model.token_to_id(mark) is None:
        return False
    vocabulary = "\n".join(backend.get_vocab(with_added_tokens=False))
    return not re.search(rf"[A-Za-z0-9]{mark}", vocabulary)


def _added_tokens_keep_off(backend: Any) -> bool:
    """Whether no added token reaches over a cut, touches one, or is the space itself."""
    for token in backend.get_added_tokens_decoder().values():
        bare = token.content.strip()
        if CROSSING.search(bare) or bare[:1].isalnum() or bare[-1:].isalnum():
            return False
        if token.content in (" ", SPACE_MARK, BYTE_MARK):
            return False
    return True
