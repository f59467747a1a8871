"""The prompts of an activation store: their variants, their tokens, and words as tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from interpflow.activations.store import ActivationStore
from interpflow.errors import UserError

IntArray = NDArray[np.intp]

CLEAN, NULL, CONTROL = "clean", "null", "control"
# Numbers held at once while states are read: 3.2e7 float32 are 128 MB.
BLOCK = 32_000_000


@dataclass(frozen=True, eq=False)
class StoredTokens:
    """The kept tokens of a store, row by row, and which rows are whose.

    `places`: example id → rows [first, stop); `positions`, `starts`, `ends` [rows] position in
    the prompt and characters of the example's own text, −1 for a token that is not of it.
    """

    places: dict[str, tuple[int, int]]
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, store: ActivationStore) -> StoredTokens:
        index = store.index
        ids = pc.cast(index["example_id"], pa.string()).combine_chunks().dictionary_encode()
        codes = ids.indices.to_numpy()
        firsts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(codes) else codes
        stops = np.append(firsts[1:], len(codes))
        names = ids.dictionary.to_pylist()
        places = {
            names[codes[first]]: (int(first), int(stop)) for first, stop in zip(firsts, stops)
        }

        def column(name: str) -> NDArray[np.int64]:
            return pc.fill_null(index[name], -1).to_numpy().astype(np.int64)

        starts, ends = column("char_start"), column("char_end")
        outside = ends <= starts  # special tokens cover no characters
        starts[outside], ends[outside] = -1, -1
        return cls(places, column("token_position"), starts, ends)

    def last(self, example_id: str) -> int:
        """Row of the prompt's last token."""
        return self.places[example_id][1] - 1

    def is_whole(self, example_id: str) -> bool:
        """Whether every token of the prompt is kept."""
        first, stop = self.places[example_id]
        return bool(self.positions[stop - 1] - self.positions[first] == stop - first - 1
                    and self.positions[first] == 0)  # fmt: skip

    def last_in(self, example_id: str, spans: Sequence[tuple[int, int]]) -> IntArray:
        """Row of the last token that shares a character with each span; −1 where none does."""
        first, stop = self.places[example_id]
        text = first + np.flatnonzero(self.starts[first:stop] >= 0)
        found = np.full(len(spans), -1, dtype=np.intp)
        if len(text) == 0 or len(spans) == 0:
            return found
        begins, ends = np.asarray(spans, dtype=np.int64).reshape(-1, 2).T
        at = np.searchsorted(self.starts[text], ends, side="left") - 1
        kept = (at >= 0) & (ends > begins)
        kept &= self.ends[text[np.maximum(at, 0)]] > begins
        found[kept] = text[at[kept]]
        return found

    def all_in(self, example_id: str, spans: Sequence[tuple[int, int]]) -> IntArray:
        """Rows of all tokens that share a character with any of the spans, in order."""
        first, stop = self.places[example_id]
        starts, ends = self.starts[first:stop], self.ends[first:stop]
        inside = np.zeros(stop - first, dtype=bool)
        for begin, end in spans:
            inside |= (starts < end) & (ends > begin) & (starts >= 0)
        return first + np.flatnonzero(inside)


@dataclass(frozen=True, eq=False)
class StoredPrompts:
    """The perturbed prompts of a store, each with its clean one; every column [variants].

    `examples`, `cleans`: rows of the table `robustness_examples`; `answers`: rows of
    `robustness_answers` by example id; `others`: clean rows of an unrelated prompt (None: there is
    none).
    """

    tokens: StoredTokens
    examples: list[dict[str, Any]]
    cleans: list[dict[str, Any]]
    others: list[dict[str, Any] | None]
    answers: dict[str, dict[str, Any]]

    def __len__(self) -> int:
        return len(self.examples)

    def column(self, name: str) -> NDArray[Any]:
        """A column of the variants' example rows, as objects."""
        return np.array([row[name] for row in self.examples], dtype=object)

    @cached_property
    def operators(self) -> NDArray[Any]:
        return self.column("operator")

    @cached_property
    def families(self) -> NDArray[Any]:
        """Units of inference."""
        return self.column("family_id")

    @cached_property
    def splits(self) -> NDArray[Any]:
        return self.column("split")

    @cached_property
    def is_typo(self) -> NDArray[np.bool_]:
        return self.column("family") == "typo"

    @cached_property
    def accepted(self) -> NDArray[np.bool_]:
        """Variants that keep the meaning, as far as that was checked."""
        verdicts = [self.answers.get(row["example_id"], {}).get("accepted")
                    for row in self.examples]  # fmt: skip
        return np.array([verdict is not False for verdict in verdicts], dtype=bool)

    @cached_property
    def n_edits(self) -> int | None:
        """The usual number of edits: what most typo variants have, the smaller of equals."""
        counts = Counter(row["n_edits"] for row in self.examples
                         if row["family"] == "typo" and row["n_edits"] is not None)  # fmt: skip
        return min(counts, key=lambda number: (-counts[number], number)) if counts else None

    @cached_property
    def usual(self) -> NDArray[np.bool_]:
        """Accepted variants with the usual number of edits, or of operators that count none."""
        usual = [row["rate"] is None and row["n_edits"] in (None, self.n_edits)
                 for row in self.examples]  # fmt: skip
        return np.array(usual, dtype=bool) & self.accepted

    def correct(self, example_id: str) -> float:
        """1 right, 0 wrong by the strict reading, NaN where it cannot be told."""
        verdict = self.answers.get(example_id, {}).get("strict_correct")
        return np.nan if verdict is None else float(verdict)

    @cached_property
    def clean_rows(self) -> list[dict[str, Any]]:
        """Each clean prompt once, in the order of the variants."""
        return list({row["example_id"]: row for row in self.cleans}.values())


def stored_prompts(
    store: ActivationStore,
    examples: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
) -> StoredPrompts:
    """The variants of a store in the order of base items and examples.

    A variant whose clean prompt is not in the store is an error: nothing could be compared.
    """
    tokens = StoredTokens.of(store)
    kept = [dict(row) for row in examples if row["example_id"] in tokens.places]
    clean_of = {row["base_id"]: row for row in kept if row["operator"] == CLEAN}
    missing = sorted({row["base_id"] for row in kept}.difference(clean_of))
    if missing:
        raise UserError(
            f"{len(missing)} prompts have states of variants but none of the clean prompt",
            where=f"{store.directory}, prompt {missing[0]!r}",
            remedy="run the inference of this study again",
        )
    other_of = _unrelated(list(clean_of.values()))
    variants = sorted(
        (row for row in kept if row["operator"] != CLEAN), key=lambda row: row["base_id"]
    )
    return StoredPrompts(
        tokens=tokens,
        examples=variants,
        cleans=[clean_of[row["base_id"]] for row in variants],
        others=[other_of[row["base_id"]] for row in variants],
        answers={row["example_id"]: dict(row) for row in answers},
    )


def _unrelated(cleans: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Another clean prompt for each, of another family: the next one in an order without meaning,
    so that each serves about once."""

    def order(row: Mapping[str, Any]) -> str:
        return hashlib.sha256(str(row["base_id"]).encode()).hexdigest()

    ring = sorted(cleans, key=order)
    found: dict[str, dict[str, Any] | None] = {}
    for i, row in enumerate(ring):
        later = (ring[(i + k) % len(ring)] for k in range(1, len(ring)))
        found[row["base_id"]] = next(
            (other for other in later if other["family_id"] != row["family_id"]), None
        )
    return found


def mean_states(
    store: ActivationStore, site: str, rows: IntArray, groups: IntArray, n_groups: int
) -> NDArray[np.float32]:
    """Means [groups, width] of the states at `rows` of the index by `groups` [rows], in order of
    groups; NaN for a group without rows. Read piece by piece."""
    width = store.records[site].width
    found = np.full((n_groups, width), np.nan, dtype=np.float32)
    counts = np.bincount(groups, minlength=n_groups)
    ends = np.cumsum(counts)
    first = 0
    while first < n_groups:
        start = ends[first] - counts[first]
        limit = max(start + BLOCK // width, ends[first])
        last = max(first + 1, int(np.searchsorted(ends, limit, side="right")))
        here = counts[first:last]
        states = store.matrix(site, rows[start : ends[last - 1]])
        present = np.flatnonzero(here)
        if len(present):
            begins = (np.cumsum(here) - here)[present]
            sums = np.add.reduceat(states, begins, axis=0)
            found[first + present] = sums / here[present, None].astype(np.float32)
        first = last
    return found
