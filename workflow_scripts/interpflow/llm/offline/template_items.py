"""The generator of task items: templates whose answer can be worked out, or looked up."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from interpflow.config.identity import derived_seed
from interpflow.errors import UserError
from interpflow.llm.offline.items import field
from interpflow.tasks.nlp.listed import listed_items

Written = dict[str, Any]
LARGEST = 50


def template_items(item: Mapping[str, Any], sample: int) -> dict[str, list[Written]]:
    """item["n"] items of the task item["name"], as `ITEMS_SCHEMA` wants them, drawn by item["seed"]
    and the sample; some may be equal. Raises UserError for a task without templates."""
    name = str(field(item, "name"))
    check_task(name)
    rng = random.Random(derived_seed(int(item.get("seed", 0)), "template_items", name, sample))
    return {"items": [TEMPLATES[name](rng) for _ in range(int(field(item, "n")))]}


def check_task(name: str) -> None:
    """Raise UserError for a task without templates."""
    if name not in TEMPLATES:
        raise UserError(
            f"the offline generator does not write items of {name!r}",
            where="layer_surgery.tasks.written.tasks",
            remedy=f"choose from {', '.join(TEMPLATES)}, or let a language model play "
            "llm.roles.generator",
        )


def _written(prompt: str, *accepted: str) -> Written:
    return {"prompt": prompt, "answer": accepted[0], "accepted": list(accepted)}


def _sum(rng: random.Random) -> Written:
    left, right = rng.randint(1, LARGEST), rng.randint(1, LARGEST - 1)
    wording = rng.choice(("The sum of {} and {} is", "{} plus {} is"))
    return _written(wording.format(left, right), str(left + right))


def _difference(rng: random.Random) -> Written:
    right, answer = rng.randint(1, LARGEST), rng.randint(1, LARGEST - 1)
    wording = rng.choice(("{} - {} =", "{} minus {} is"))
    return _written(wording.format(right + answer, right), str(answer))


def _larger(rng: random.Random) -> Written:
    pair = rng.sample(range(1, 2 * LARGEST), 2)
    return _written("The larger of {} and {} is".format(*pair), str(max(pair)))


def _next(rng: random.Random) -> Written:
    number = rng.randint(1, 2 * LARGEST - 2)
    return _written(f"The number after {number} is", str(number + 1))


def _opposite(rng: random.Random) -> Written:
    known = rng.choice(listed_items("antonyms"))
    word = known.prompt.removeprefix("The opposite of ").removesuffix(" is")
    return _written(f"If something is not {word}, it may be", *known.accepted)


TEMPLATES: dict[str, Callable[[random.Random], Written]] = {
    "sums": _sum,
    "differences": _difference,
    "larger_numbers": _larger,
    "next_numbers": _next,
    "opposites": _opposite,
}
