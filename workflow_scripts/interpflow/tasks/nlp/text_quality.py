"""Whether generated text has the form of an answer, and how much it repeats itself."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Literal

from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.scorers import first_number, first_words, number_of, stated_part

Form = Literal["number", "json", "python", "word", "symbol", "text"]
GRAM_WORDS = 4
# An opening bracket or quote may stand before a number or a word.
LEAD = re.compile(r"[\s\"'“‘(*]*")
WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def format_score(item: TaskItem, text: str) -> float:
    """1 where a continuation of the prompt has the form of an answer, right or wrong; else 0.

    A number where one is asked for; with the prompt's last line, valid JSON where that line begins
    as JSON, and Python that parses for the task `code`; a word of letters, or a mark, where the
    reference answer begins with one. Any text that is not empty is a free answer.
    """
    form = form_of(item)
    stated = stated_part(item, text)
    if form == "number":
        found = first_number(stated)
        return float(found is not None and LEAD.fullmatch(stated[: found[0]]) is not None)
    if form == "json":
        return float(_is_json(item.prompt.rsplit("\n", 1)[-1] + text.split("\n", 1)[0]))
    if form == "python":
        # Of a prompt with solved examples, only the last lines are the item's own.
        lines = (item.prompt + text.split("\n", 1)[0]).split("\n")
        return float(any(_is_python("\n".join(lines[-n:])) for n in (1, 2)))
    if form == "word":
        return float(WORD.match(LEAD.sub("", stated, count=1)) is not None)
    if form == "symbol":
        return float(bool(stated) and not stated[0].isalnum())
    return float(bool(stated))


def form_of(item: TaskItem) -> Form:
    """The form that an answer has by its scorer, its task and its reference answer."""
    if item.task == "code":
        return "python"
    if item.prompt.rsplit("\n", 1)[-1].lstrip().startswith(("{", "[")):
        return "json"
    if item.scorer == "free":
        return "text"
    if item.scorer == "number" or number_of(first_words(item.answer.strip(), 1)) is not None:
        return "number"
    return "word" if WORD.match(LEAD.sub("", item.answer, count=1)) else "symbol"


def repetition(text: str) -> float:
    """Share, 0 to 1, of the runs of `GRAM_WORDS` words that stand in the text before; 0 for a text
    of fewer words."""
    words = text.casefold().split()
    runs = [tuple(words[at : at + GRAM_WORDS]) for at in range(len(words) - GRAM_WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_python(text: str) -> bool:
    """Whether lines parse; the body of a statement that the last line opens may be missing."""
    body = " pass" if text.rstrip().endswith(":") else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            ast.parse(text + body)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return False
    return True
