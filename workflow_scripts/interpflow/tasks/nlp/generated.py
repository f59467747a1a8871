"""Task items drawn from a seed: arithmetic, copying, patterns, JSON and code."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from interpflow.tasks.nlp.drawn_words import load_words
from interpflow.tasks.nlp.items import TaskItem

MAX_SUM = 99
MAX_TERM_OF_THREE = 20
ARITHMETIC_TASKS = ("addition", "addition_three")
COPY_LENGTHS = {3: "three", 4: "four", 5: "five"}
COUNTING_STEPS = (1, 2, 3, 5, 10)


def addition(rng: random.Random) -> TaskItem:
    """Two terms of at least 1 whose sum is at most `MAX_SUM`; a carry as often as none."""
    wanted = rng.random() < 0.5
    while True:
        left, right = rng.randint(1, 98), rng.randint(1, 98)
        if left + right <= MAX_SUM and (left % 10 + right % 10 > 9) == wanted:
            break
    return _sum_item("addition", (left, right))


def addition_three(rng: random.Random) -> TaskItem:
    """Three terms from 1 to `MAX_TERM_OF_THREE`; a carry as often as none."""
    wanted = rng.random() < 0.5
    while True:
        terms = tuple(rng.randint(1, MAX_TERM_OF_THREE) for _ in range(3))
        if (sum(term % 10 for term in terms) > 9) == wanted:
            return _sum_item("addition_three", terms)


def _sum_item(task: str, terms: tuple[int, ...]) -> TaskItem:
    total = str(sum(terms))
    return TaskItem(
        task=task,
        prompt=f"{' + '.join(map(str, terms))} =",
        answer=f" {total}",
        scorer="number",
        accepted=(total,),
        kind="carry" if sum(term % 10 for term in terms) > 9 else "no_carry",
        family=" ".join(map(str, sorted(terms))),
    )


def copying(rng: random.Random) -> TaskItem:
    """A list of different words twice, the second time without its last word."""
    n_words = rng.choice(tuple(COPY_LENGTHS))
    words = rng.sample(load_words().nouns, n_words)
    listed = ", ".join(words)
    return TaskItem(
        task="copying",
        prompt=f"{listed}. {', '.join(words[:-1])},",
        answer=f" {words[-1]}",
        accepted=(words[-1],),
        kind=COPY_LENGTHS[n_words],
        family=listed,
    )


def pattern(rng: random.Random) -> TaskItem:
    """A repeating pattern of words, or numbers that rise or fall by a constant step."""
    if rng.random() < 0.5:
        return _counting(rng)
    unit = rng.choice(("AB", "AAB", "ABB", "ABC"))
    words = dict(zip("ABC", rng.sample(load_words().nouns, 3), strict=True))
    length = rng.randint(2 * len(unit), 3 * len(unit))
    shown = [words[unit[index % len(unit)]] for index in range(length + 1)]
    return TaskItem(
        task="pattern",
        prompt=f"{', '.join(shown[:-1])},",
        answer=f" {shown[-1]}",
        accepted=(shown[-1],),
        kind="repeating",
        family=" ".join(words[letter] for letter in unit),
    )


def _counting(rng: random.Random) -> TaskItem:
    step, n_shown = rng.choice(COUNTING_STEPS), rng.randint(3, 5)
    start = rng.randint(1, MAX_SUM - step * n_shown)
    numbers = [start + step * index for index in range(n_shown + 1)]
    falling = rng.random() < 0.3
    if falling:
        numbers.reverse()
    *shown, answer = map(str, numbers)
    return TaskItem(
        task="pattern",
        prompt=f"{', '.join(shown)},",
        answer=f" {answer}",
        scorer="number",
        accepted=(answer,),
        kind="falling" if falling else "rising",
        family=" ".join(map(str, sorted(numbers))),
    )


def json_text(rng: random.Random) -> TaskItem:
    """JSON lines of one form, the second cut before its closing brackets or its next key.

    The first line says how long the second is to be: an object that may go on has no right end.
    """
    kind = rng.choice(("close_object", "close_list", "close_nested", "next_key"))
    keys = rng.sample(load_words().keys, 2)
    if kind == "close_list":
        n_values, of_words = rng.randint(2, 3), rng.random() < 0.5
        pool: Sequence[str | int] = load_words().nouns if of_words else range(1, 100)
        first, second = (
            f"[ {', '.join(_value(value) for value in rng.sample(pool, n_values))}"
            for _ in range(2)
        )
        return _code_item("json", kind, f"{first} ]\n{second}", " ]")
    if kind == "close_nested":
        first, second = (f'{{ "{keys[0]}": {{ {_entry(keys[1], rng)}' for _ in range(2))
        return _code_item("json", kind, f"{first} }} }}\n{second}", " } }")
    first, second = (f"{{ {', '.join(_entry(key, rng) for key in keys)}" for _ in range(2))
    if kind == "close_object":
        return _code_item("json", kind, f"{first} }}\n{second}", " }")
    cut = f"{{ {_entry(keys[0], rng)},"
    return _code_item("json", kind, f"{first} }}\n{cut}", f' "{keys[1]}":')


def _entry(key: str, rng: random.Random) -> str:
    values = load_words().values.get(key)
    return f'"{key}": {_value(rng.choice(values) if values else rng.randint(1, 99))}'


def _value(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def code(rng: random.Random) -> TaskItem:
    """A line of Python cut before a bracket, a colon or a keyword."""
    kind = rng.choice(("bracket", "colon", "keyword"))
    words = load_words()
    name, other = rng.sample(words.lists, 2)
    scalar, word, number = rng.choice(words.scalars), rng.choice(words.nouns), rng.randint(1, 99)
    function, module = rng.choice(words.functions), rng.choice(words.modules)
    prompt, answer = rng.choice(
        {
            "bracket": (
                (f"{name} = [{_numbers(rng)}]\n{other} = [{_numbers(rng)}", "]"),
                (f"{scalar} = {function}({name}", ")"),
                (f"print({function}({name}", "))"),
                (f"{scalar} = {name}[{number}", "]"),
            ),
            "colon": (
                (f"for {word} in {name}", ":"),
                (f"if {scalar} > {number}", ":"),
                (f"while {scalar} < {number}", ":"),
                (f"if {word} in {name}", ":"),
            ),
            "keyword": (
                (f"for {word}", " in"),
                (f"{scalar} = {number} if {word} in {name}", " else"),
                (f"from {module}", " import"),
                (f"{name} = [{word} for {word}", " in"),
                (f"def {function}_{name}({other}):\n   ", " return"),
            ),
        }[kind]
    )
    return _code_item("code", kind, prompt, answer)


def _numbers(rng: random.Random) -> str:
    return ", ".join(str(number) for number in rng.sample(range(1, 100), 2))


def _code_item(task: str, kind: str, prompt: str, answer: str) -> TaskItem:
    """An item right however it is spaced, unless its last bracket or word goes on."""
    text = answer.strip()
    more = rf"(?!\s*{re.escape(text[-1])})" if text[-1] in ")]}" else r"(?!\w)"
    parts = r"\s*".join(re.escape(part) for part in re.findall(r"\w+|[^\w\s]", text))
    return TaskItem(
        task=task,
        prompt=prompt,
        answer=answer,
        scorer="regex",
        accepted=(text,),
        pattern=rf"\s*{parts}{more}",
        kind=kind,
        family=prompt,
    )


DRAWS: dict[str, Callable[[random.Random], TaskItem]] = {
    "addition": addition,
    "addition_three": addition_three,
    "json": json_text,
    "code": code,
    "copying": copying,
    "pattern": pattern,
}


def draws(task: str, rng: random.Random) -> Iterator[TaskItem]:
    """Endless items of a task of `DRAWS`, equal ones among them."""
    while True:
        yield DRAWS[task](rng)
