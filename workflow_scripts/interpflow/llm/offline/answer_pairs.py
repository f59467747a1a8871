"""Which of two answers is better, by the rule judge: the one that states the gold answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from interpflow.errors import UserError
from interpflow.llm.offline.items import field
from interpflow.llm.offline.rule_judge import compare_answer

Preference = Literal["first", "second", "same"]
PREFERENCES: tuple[Preference, ...] = get_args(Preference)


def better_answer(item: Mapping[str, Any], sample: int) -> Preference:
    """Which of item["first"] and item["second"] answers better: "same" where both or neither state
    item["gold"] (compared as `compare_answer` does, by item["kind"]).

    Raises UserError where there is no gold answer: a rule cannot weigh texts.
    """
    gold = field(item, "gold")
    if gold is None:
        raise UserError(
            "the offline judge compares answers by the gold answer, and this item has none",
            where="llm.roles.judge",
            remedy="let a language model play the judge, or set robustness.scoring.judge: false",
        )
    kind = {"kind": item["kind"]} if item.get("kind") else {}
    first, second = (
        compare_answer({**kind, "answer": field(item, key), "gold": gold}, sample) == "correct"
        for key in ("first", "second")
    )
    return "same" if first == second else "first" if first else "second"
