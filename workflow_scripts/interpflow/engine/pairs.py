"""Pairs of prompts, clean and corrupted, with the answers that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.models.tokens import encode


@dataclass(frozen=True)
class Pair:
    """clean, corrupted: token ids (or texts, where the model has a tokenizer).

    answers: token ids (or texts of one token): the clean prompt's right answer, the corrupted
    prompt's, then any further candidates. values: the number that each answer stands for.
    alignment: (clean position, corrupted position) pairs, needed where the prompts differ in
    length; positions that are in none are not patched.
    """

    clean: Sequence[int] | str
    corrupted: Sequence[int] | str
    answers: Sequence[int | str] = ()
    values: Sequence[float] | None = None
    alignment: Sequence[tuple[int, int]] | None = None


@dataclass(frozen=True)
class TokenPair:
    """A `Pair` whose prompts and answers are token ids."""

    clean: list[int]
    corrupted: list[int]
    answers: list[int]
    values: list[float] | None
    alignment: list[tuple[int, int]] | None


def as_pairs(model: Model, pairs: Sequence[Pair | Mapping[str, Any]]) -> list[TokenPair]:
    """Checked pairs of token ids. Raises UserError naming the pair and the key."""
    if not pairs:
        raise UserError("there are no pairs to sweep", where="pairs", remedy="give at least one")
    return [_checked(model, pair, f"pair {i}") for i, pair in enumerate(pairs)]


def donor_tables(pairs: Sequence[TokenPair], denoise: bool) -> list[list[int] | None] | None:
    """Per pair the donor position of each position of the patched run (-1: none); None for a pair
    whose positions correspond as they are, and None if that is so of all."""
    if all(pair.alignment is None for pair in pairs):
        return None
    tables: list[list[int] | None] = []
    for pair in pairs:
        if pair.alignment is None:
            tables.append(None)
            continue
        table = [-1] * len(pair.corrupted if denoise else pair.clean)
        for clean, corrupted in pair.alignment:
            recipient, donor = (corrupted, clean) if denoise else (clean, corrupted)
            table[recipient] = donor
        tables.append(table)
    return tables


def _checked(model: Model, pair: Pair | Mapping[str, Any], where: str) -> TokenPair:
    if isinstance(pair, Mapping):
        known = [field.name for field in fields(Pair)]
        if unknown := sorted(set(pair) - set(known)):
            raise UserError(
                f"unknown key {unknown[0]!r}", where=where, remedy=f"use {', '.join(known)}"
            )
        if missing := [key for key in ("clean", "corrupted") if key not in pair]:
            raise UserError(f"{missing[0]!r} is missing", where=where)
        pair = Pair(**pair)
    clean = _prompt(model, pair.clean, f"{where}, clean")
    corrupted = _prompt(model, pair.corrupted, f"{where}, corrupted")
    alignment = None
    if pair.alignment is not None:
        alignment = [(int(a), int(b)) for a, b in pair.alignment]
        if any(not (0 <= a < len(clean) and 0 <= b < len(corrupted)) for a, b in alignment):
            raise UserError("an aligned position lies outside its prompt", where=where)
        for side in zip(*alignment):
            if len(set(side)) < len(side):
                raise UserError("a position is aligned twice", where=where)
    elif len(clean) != len(corrupted):
        raise UserError(
            f"clean has {len(clean)} tokens, corrupted {len(corrupted)}",
            where=where,
            remedy="make pairs of equally many tokens, or give an alignment",
        )
    answers = [_answer(model, answer, where) for answer in pair.answers]
    if len(set(answers)) < len(answers):
        raise UserError("two answers are the same token", where=f"{where}, answers")
    values = None if pair.values is None else [float(value) for value in pair.values]
    if values is not None and len(values) != len(answers):
        raise UserError(f"{len(values)} values for {len(answers)} answers", where=where)
    if values is not None and not all(math.isfinite(value) for value in values):
        raise UserError("a value is not a finite number", where=f"{where}, values")
    return TokenPair(clean, corrupted, answers, values, alignment)


def _prompt(model: Model, prompt: Sequence[int] | str, where: str) -> list[int]:
    if isinstance(prompt, str):
        ids = list(encode(_tokenizer(model, where), prompt).ids)
    else:
        ids = [int(token) for token in prompt]
    if not ids:
        raise UserError("the prompt is empty", where=where)
    config: Any = model.module.config.get_text_config(decoder=True)
    most = getattr(config, "max_position_embeddings", None)
    if most and len(ids) > most:
        raise UserError(
            f"the prompt has {len(ids)} tokens, the model has {most} positions", where=where,
            remedy="shorten it, or choose a model with a longer context",
        )  # fmt: skip
    outside = [token for token in ids if not 0 <= token < model.vocab_size]
    if outside:
        raise UserError(
            f"there is no token {outside[0]} in a vocabulary of {model.vocab_size}", where=where
        )
    return ids


def _answer(model: Model, answer: int | str, where: str) -> int:
    where = f"{where}, answers"
    if not isinstance(answer, str):
        if not 0 <= int(answer) < model.vocab_size:
            raise UserError(f"there is no token {answer}", where=where)
        return int(answer)
    ids = _tokenizer(model, where)(answer, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise UserError(
            f"the answer {answer!r} is {len(ids)} tokens, not one",
            where=where,
            remedy="use answers of one token (mind the space before a word), or score whole "
            "answers with interpflow.inference",
        )
    return int(ids[0])


def _tokenizer(model: Model, where: str) -> Any:
    if model.tokenizer is None:
        raise UserError(
            "text needs a tokenizer, and this model has none", where=where, remedy="give token ids"
        )
    return model.tokenizer
