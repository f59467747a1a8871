"""Attention from the answer's start and from each number to the edited words, against controls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interpflow.activations.store import ActivationStore
from interpflow.stats.attention_lift import attention_lift, log_lift_contrast
from interpflow.studies.robustness.inside.stored_prompts import StoredPrompts, StoredTokens

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_SITE = re.compile(r"pattern_(?P<query>[A-Za-z]+)(?P<number>\d*)\.L(?P<layer>\d+)")
# Sets of words: the edited ones and untouched ones matched to them, in both prompts.
SETS = ("edited", "clean_edited", "control", "clean_control")


@dataclass(frozen=True, eq=False)
class AttentionShifts:
    """Attention of variants whose edited words are known; `variants` [rows] their numbers.

    `cells`: (layer, query), in the order of the sites; arrays [rows, cells, heads], NaN where
    undefined (a query before the words, a word without tokens). `share`: of the attention of the
    query without the first token; `lifts` by set of words.
    """

    variants: IntArray
    cells: tuple[tuple[int, str], ...]
    n_heads: int
    share: FloatArray
    lifts: dict[str, FloatArray]

    @cached_property
    def contrast(self) -> FloatArray:
        """Log difference in differences (methods 4.6), [rows, cells, heads]."""
        return log_lift_contrast(*(self.lifts[name] for name in SETS))


@dataclass(frozen=True, eq=False)
class _WordRows:
    """Rows of the index of one set of words, [rows], by variant [rows] in order."""

    rows: IntArray
    variants: IntArray


def measure_attention(store: ActivationStore, prompts: StoredPrompts) -> AttentionShifts:
    """Shares, lifts and contrasts from every kept `pattern_<query>` site of the store.

    Where tokens were left out of the store, what the query pays to all but the first token is 1
    minus what it pays to the first; without the first token nothing is defined.
    """
    sites = sorted(
        ((int(found["layer"]), _query_name(found), site)
         for site in store.sites if (found := _SITE.fullmatch(site))),
    )  # fmt: skip
    names = ("word_starts", "word_ends")
    asked = np.flatnonzero([bool(row[names[0]]) for row in prompts.examples])
    sets = {name: _word_rows(prompts, asked, name) for name in SETS}
    n_heads = store.records[sites[0][2]].width if sites else 0
    shape = (len(asked), len(sites), n_heads)
    share = np.full(shape, np.nan)
    lifts = {name: np.full(shape, np.nan) for name in SETS}
    places: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
    for cell, (_, query, site) in enumerate(sites):
        if query not in places:
            rows = [*prompts.clean_rows, *(prompts.examples[i] for i in asked)]
            places[query] = _query_rows(prompts.tokens, rows, query)
        query_rows, visible = places[query]
        pattern = store.matrix(site).astype(np.float64)
        whole = _visible_attention(prompts.tokens, pattern, query_rows)
        for name in SETS:
            holders = prompts.cleans if name.startswith("clean") else prompts.examples
            ids = [holders[i]["example_id"] for i in asked]
            at = np.array([query_rows.get(one, -1) for one in ids], dtype=np.intp)
            part, size = _on_set(prompts.tokens, pattern, sets[name], at)
            total = np.array([whole.get(one, np.full(n_heads, np.nan)) for one in ids])
            count = np.array([visible.get(one, 0) for one in ids], dtype=np.float64)[:, None]
            total = total.reshape(len(asked), n_heads)
            lifts[name][:, cell] = attention_lift(part, size[:, None], total, count)
            if name == "edited":
                with np.errstate(invalid="ignore", divide="ignore"):
                    share[:, cell] = np.where(size[:, None] > 0, part / total, np.nan)
    cells = tuple((layer, query) for layer, query, _ in sites)
    return AttentionShifts(asked, cells, n_heads, share, lifts)


def attention_table(prompts: StoredPrompts, found: AttentionShifts) -> pa.Table:
    """The table `robustness_attention`: a row per variant, layer, head and query where the share
    exists; what is undefined is null."""
    row, cell, head = np.nonzero(np.isfinite(found.share))
    variant = found.variants[row]
    columns: dict[str, Any] = {
        name: prompts.column(name)[variant].tolist()
        for name in ("example_id", "base_id", "family_id", "split", "operator", "n_edits")
    }
    columns["layer"] = np.array([layer for layer, _ in found.cells], dtype=np.int32)[cell]
    columns["head"] = head.astype(np.int32)
    columns["query"] = np.array([query for _, query in found.cells], dtype=object)[cell].tolist()
    values = {
        "edited_share": found.share,
        "edited_lift": found.lifts["edited"],
        "clean_lift": found.lifts["clean_edited"],
        "control_lift": found.lifts["control"],
        "clean_control_lift": found.lifts["clean_control"],
        "log_did": found.contrast,
    }
    for name, array in values.items():
        columns[name] = pa.array(array[row, cell, head], from_pandas=True)
    return pa.table(columns)


def _query_name(found: re.Match[str]) -> str:
    """ "number0" of a site is the query "number:0"."""
    return f"{found['query']}:{found['number']}" if found["number"] else found["query"]


def _query_rows(
    tokens: StoredTokens, rows: list[dict[str, Any]], query: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Example id → row of the query's token, and → how many tokens but the first it sees."""
    found: dict[str, int] = {}
    for example in rows:
        name = example["example_id"]
        if query in ("answer", "last"):
            found[name] = tokens.last(name)
            continue
        number = int(query.split(":")[1])
        starts, ends = example["number_starts"] or [], example["number_ends"] or []
        if number < len(starts):
            row = int(tokens.last_in(name, [(starts[number], ends[number])])[0])
            if row >= 0:
                found[name] = row
    return found, {name: int(tokens.positions[row]) for name, row in found.items()}


def _visible_attention(
    tokens: StoredTokens, pattern: FloatArray, query_rows: Mapping[str, int]
) -> dict[str, FloatArray]:
    """Example id → attention [heads] to all tokens up to the query but the first."""
    found: dict[str, FloatArray] = {}
    for name, row in query_rows.items():
        first = tokens.places[name][0]
        if tokens.is_whole(name):
            found[name] = pattern[first + 1 : row + 1].sum(axis=0)
        elif tokens.positions[first] == 0:
            found[name] = 1.0 - pattern[first]
    return found


def _word_rows(prompts: StoredPrompts, asked: IntArray, name: str) -> _WordRows:
    """All tokens of the words of a set, without the first token of the prompt."""
    keys = {
        "edited": ("word_starts", "word_ends"),
        "clean_edited": ("clean_word_starts", "clean_word_ends"),
        "control": ("control_starts", "control_ends"),
        "clean_control": ("clean_control_starts", "clean_control_ends"),
    }[name]
    rows, variants = [], []
    for number, i in enumerate(asked):
        holder = prompts.cleans[i] if name.startswith("clean") else prompts.examples[i]
        spans = [prompts.examples[i][key] or [] for key in keys]
        inside = prompts.tokens.all_in(holder["example_id"], list(zip(*spans)))
        inside = inside[prompts.tokens.positions[inside] > 0]
        rows.append(inside)
        variants.append(np.full(len(inside), number, dtype=np.intp))
    if not rows:
        return _WordRows(np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp))
    return _WordRows(np.concatenate(rows), np.concatenate(variants))


def _on_set(
    tokens: StoredTokens, pattern: FloatArray, words: _WordRows, query_rows: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Attention [variants, heads] to the words that the query can see, and how many tokens of
    them [variants] it sees."""
    n = len(query_rows)
    at = query_rows[words.variants]
    seen = (at >= 0) & (words.rows <= at)
    rows, variants = words.rows[seen], words.variants[seen]
    counts = np.bincount(variants, minlength=n)
    found = np.zeros((n, pattern.shape[1]))
    present = np.flatnonzero(counts)
    if len(present):
        begins = (np.cumsum(counts) - counts)[present]
        found[present] = np.add.reduceat(pattern[rows], begins, axis=0)
    return found, counts.astype(np.float64)
