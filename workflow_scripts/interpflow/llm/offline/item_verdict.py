"""The judge of written items: what can be worked out, or looked up in the built-in lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from interpflow.llm.offline.items import field
from interpflow.tasks.arithmetic import evaluate_expression
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.listed import LISTED_TASKS, listed_items
from interpflow.tasks.nlp.writing import ItemVerdict
from interpflow.tasks.typed_numbers import parse_number

SIGNS = {"plus": "+", "minus": "-", "times": "*"}
NUMBERS = re.compile(r"\d+")
OPPOSITE = re.compile(r"(?:the opposite of|if something is not) (\w+)(?: is|, it may be)$", re.I)


def item_verdict(item: Mapping[str, Any], sample: int) -> ItemVerdict:
    """Whether every one of item["accepted"] continues item["prompt"] rightly.

    Sums, differences, the larger of two numbers and the next number are worked out; opposites and
    the prompts of the built-in tasks looked up. Of anything else a rule cannot tell.
    """
    prompt = " ".join(str(field(item, "prompt")).split())
    accepted = [str(each) for each in field(item, "accepted")]
    value = _worked_out(prompt)
    if value is not None:
        wanted = parse_number(value)
        right = all(parse_number(each) == wanted for each in accepted)
        return "correct" if right and accepted else "incorrect"
    known = _looked_up(prompt)
    if known is None:
        return "unclear"
    folded = {each.casefold() for each in known}
    return "correct" if {each.casefold() for each in accepted} <= folded else "incorrect"


def _worked_out(prompt: str) -> str | None:
    text = prompt.casefold()
    numbers = [int(number) for number in NUMBERS.findall(text)]
    if re.fullmatch(r"the sum of \d+ and \d+ is", text):
        return str(sum(numbers))
    if re.fullmatch(r"the larger of \d+ and \d+ is", text):
        return str(max(numbers))
    if re.fullmatch(r"the number after \d+ is", text):
        return str(numbers[0] + 1)
    for word, sign in SIGNS.items():
        text = text.replace(word, sign)
    expression = re.fullmatch(r"(\d+(?: [-+*] \d+)+) (?:is|=)", text)
    value = evaluate_expression(expression[1]) if expression else None
    return None if value is None else str(value)


def _looked_up(prompt: str) -> Sequence[str] | None:
    found = OPPOSITE.match(prompt)
    item = _known().get(f"The opposite of {found[1].lower()} is" if found else prompt)
    return None if item is None else item.accepted


@cache
def _known() -> dict[str, TaskItem]:
    return {item.prompt: item for task in LISTED_TASKS for item in listed_items(task)}
