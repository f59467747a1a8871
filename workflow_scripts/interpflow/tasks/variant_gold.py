"""The gold answer of a variant, read from the variant's own text where that is possible."""

from __future__ import annotations

from dataclasses import dataclass

from interpflow.tasks import instructions, problem_items
from interpflow.tasks.arithmetic import evaluate_expression
from interpflow.tasks.base_items import BaseItem
from interpflow.tasks.item_files import written
from interpflow.tasks.problem_items import problem_gold
from interpflow.tasks.typed_numbers import canonical

CHANGED = "gold changed"
LOST = "gold can no longer be read"


@dataclass(frozen=True)
class VariantGold:
    """`gold` and `continuation` of a variant; `reason` where the variant must be rejected."""

    gold: str | None
    continuation: str | None
    reason: str = ""


def variant_gold(item: BaseItem, text: str, *, may_change: bool) -> VariantGold:
    """The gold answer that a variant's text has.

    Word problems have their operations applied to the numbers that the text holds, questions with
    one arithmetic expression are evaluated anew; other gold answers belong to the item and stay.
    may_change: a new gold answer takes the old one's place instead of being a reason to reject.
    """
    same = VariantGold(item.gold, item.continuation)
    found: tuple[str, str] | None
    if item.gold is None or item.source == instructions.SOURCE:
        return same
    if item.source == problem_items.SOURCE:
        found = problem_gold(item.template_id, text)
    else:
        original = evaluate_expression(item.question.text)
        if item.gold_kind != "number" or original is None or canonical(original) != item.gold:
            return same
        value = evaluate_expression(text)
        found = None if value is None else (canonical(value), f" {written(value)}")
    if found is None:
        return VariantGold(None, None, LOST)
    if found[0] == item.gold:
        return same
    return VariantGold(*found) if may_change else VariantGold(*found, CHANGED)
