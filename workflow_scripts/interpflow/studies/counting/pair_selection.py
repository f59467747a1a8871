"""The pairs that one model is patched on: which line up, how well they balance, what is missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interpflow.config.counting import CountingPairs
from interpflow.errors import UserError
from interpflow.studies.counting.pair_balance import swapped_word_balance
from interpflow.studies.counting.pair_repair import NO_MEMBER, NO_NON_MEMBER
from interpflow.studies.counting.prepared_pairs import (
    NO_ANSWER_TOKEN,
    PreparedPair,
    Wording,
    prepare_pairs,
    tail_length,
)

KINDS = ("minimal", "prefix", "random")
MIN_PAIRS = 8  # fewer independent pairs support no interval
OTHER_WORDING = "choose another wording (counting.pairs.templates)"
MORE_PAIRS = "make more pairs (counting.pairs.oversample)"
MORE_WORDS = "give the categories more words (counting.lexicon)"


@dataclass(frozen=True)
class Selection:
    """Usable pairs by kind, tokens of the tail that are patched one by one (the answer's
    included), and the report for the document `counting_gates`."""

    pairs: Mapping[str, list[PreparedPair]]
    n_tail: int
    report: dict[str, Any]

    def rows(self) -> list[Mapping[str, Any]]:
        return [pair.row for pairs in self.pairs.values() for pair in pairs]


def select_pairs(
    rows: Sequence[Mapping[str, Any]], wording: Wording, settings: CountingPairs
) -> Selection:
    """Pairs of one wording that line up in its tokenizer.

    Raises UserError with the reasons when they are fewer than `min_used_share` of those wanted
    (random pairs are only reported).
    """
    pairs: dict[str, list[PreparedPair]] = {}
    reports: dict[str, Any] = {}
    for kind in KINDS:
        wanted = math.ceil(getattr(settings, f"n_{kind}") / len(settings.templates))
        mine = [row for row in rows if row["kind"] == kind]
        pairs[kind], refused = prepare_pairs(mine, wording, wanted)
        used = len(pairs[kind])
        reports[kind] = {
            "wanted": wanted,
            "made": len(mine),
            "used": used,
            "repaired": sum(pair.repaired for pair in pairs[kind]),
            "refused": dict(refused),
        }
        if kind != "random":
            _require(kind, used, wanted, refused, wording, settings)
    used_rows = [pair.row for pair in pairs["minimal"]]
    reports["minimal"]["balance"] = [
        asdict(row) for row in swapped_word_balance(used_rows, wording.lexicon)
    ]
    # tail-j of two wordings are different tokens: only the answer is the same place in both.
    n_tail = 1 if len(settings.templates) > 1 else tail_length(pairs["minimal"])
    report = {
        "counts": list(wording.answers.counts),
        "note": _note(wording, settings.lengths.max),
        "pairs": reports,
        "tail_tokens": list(pairs["minimal"][0].clean.texts[-n_tail:]),
    }
    return Selection(pairs, n_tail, report)


def _require(
    kind: str,
    used: int,
    wanted: int,
    refused: Counter[str],
    wording: Wording,
    settings: CountingPairs,
) -> None:
    needed = max(math.ceil(settings.min_used_share * wanted), min(wanted, MIN_PAIRS))
    if used >= needed:
        return
    width = len(str(max([used, *refused.values()])))
    table = "\n".join(f"  {n:>{width}}  {reason}" for reason, n in refused.most_common())
    raise UserError(
        f"{used} of {wanted} {kind} pairs line up in this tokenizer, {needed} are needed; "
        f"refused:\n{table}",
        where=f"wording {wording.template.id!r}, counting.pairs.min_used_share "
        f"{settings.min_used_share:g}",
        remedy=_remedy(refused, len(wording.answers.token_ids)),
    )


def _remedy(refused: Counter[str], n_counts: int) -> str:
    if not refused:
        return MORE_PAIRS
    main = refused.most_common(1)[0][0]
    if main == NO_ANSWER_TOKEN:
        return (
            f"keep lists within {n_counts - 1} words (counting.pairs.lengths), {OTHER_WORDING}, "
            f"or {MORE_PAIRS}"
        )
    if main in (NO_MEMBER, NO_NON_MEMBER):
        return f"{MORE_WORDS}, {OTHER_WORDING}, or {MORE_PAIRS}"
    return f"{OTHER_WORDING}, or {MORE_PAIRS}"


def _note(wording: Wording, longest: int) -> str:
    """What the answer's tokens leave out, in plain words; empty when nothing."""
    notes = []
    shared, last = wording.answers.shared_texts, len(wording.answers.token_ids) - 1
    if shared:
        notes.append(
            f"Every answer begins with {''.join(shared)!r}, which is given with the prompt."
        )
    if last < longest:
        notes.append(
            f"One token tells the counts 0 to {last} apart, not those above: the token that "
            f"begins {last + 1} begins a smaller count as well. Pairs with larger counts are left "
            f"out, and the answers to {last + 1} and more count as the smaller number."
        )
    return " ".join(notes)
