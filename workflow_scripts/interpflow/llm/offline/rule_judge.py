"""The judge of answers: parsed numbers and normalised texts are compared, never their parts.

A judge that looks for one string inside another finds "correct" in "incorrect" and 5 in 25. Here an
answer is what the text states as its answer; where it states none, the verdict is unclear.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

from interpflow.errors import UserError
from interpflow.llm.offline.items import field
from interpflow.tasks.counting.parse import BOXED, THOUGHT, parse_lenient

Verdict = Literal["correct", "incorrect", "unclear"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
KINDS = ("number", "text")

_NUMBER = r"[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-−+]?\.\d+"
_WHOLE_NUMBER = re.compile(rf"(?:{_NUMBER})")
# What states an answer: the last of these counts, as texts recite questions before they answer.
_STATED = re.compile(
    r"(?:\banswer(?:\s+is|\s*[:=])|####|^A:)[ \t]*:?[ \t]*(?P<answer>[^\n]+)",
    re.IGNORECASE | re.MULTILINE,
)
_LEADING_NUMBER = re.compile(
    rf"[\s(\[$€£*]*(?P<number>{_NUMBER})"
    r"(?![\d,]*\d|\.\d|\w*/|\s*(?:or|to|–)\s*[-−]?\d)"
)
_FRACTION = re.compile(r"\d\s*/\s*\d")
_CLAUSE_END = re.compile(r"[.,;:(](?:\s|$)|\s\(")
_EDGES = " \t\n.,;:!?*_`\"'“”‘’()[]{}$€£%"


def compare_answer(item: Mapping[str, Any], sample: int) -> Verdict:
    """Does item["answer"] (a model's text) state item["gold"]?

    item["kind"]: "number" (by default where the gold answer is one) or "text". Numbers are compared
    by value: 4, 4.0, "four" and "$4.00" are equal. Texts are compared whole, without case, edge
    punctuation and the width of spaces.
    """
    answer, gold = str(field(item, "answer")), field(item, "gold")
    wanted = _plain_number(str(gold))
    kind = item.get("kind", "text" if wanted is None else "number")
    if kind not in KINDS:
        raise UserError(
            f"no kind of answer {kind!r}",
            where="Ask.item",
            remedy=f"choose from: {', '.join(KINDS)}",
        )
    answer = THOUGHT.sub(" ", answer)
    if "<think>" in answer:
        return "unclear"  # cut off before it answered
    if kind == "number":
        if wanted is None:
            raise UserError(f"the gold answer {str(gold)[:40]!r} is no number", where="Ask.item")
        stated = stated_number(answer)
        return "unclear" if stated is None else "correct" if stated == wanted else "incorrect"
    return _compared_texts(answer, str(gold))


def stated_number(text: str) -> Decimal | None:
    """The number that a text states as its answer; null where it states none, or several."""
    whole = _plain_number(text)
    if whole is not None:
        return whole
    boxed = BOXED.findall(text)
    if boxed:
        return _plain_number(boxed[-1])
    for match in reversed(list(_STATED.finditer(text))):
        found = _LEADING_NUMBER.match(match["answer"].rsplit("=", 1)[-1])
        if found is not None:
            return _value(found["number"])
    if _FRACTION.search(text):
        return None
    count = parse_lenient(text).value
    return None if count is None else Decimal(count)


def _compared_texts(answer: str, gold: str) -> Verdict:
    wanted = normal_text(gold)
    if not normal_text(answer):
        return "unclear"
    candidates = [normal_text(answer)]
    stated = [*BOXED.findall(answer), *(m["answer"] for m in _STATED.finditer(answer))]
    if stated:
        # What follows the answer explains it: "Paris, the capital".
        candidates += [normal_text(stated[-1]), normal_text(_CLAUSE_END.split(stated[-1])[0])]
    if wanted in candidates:
        return "correct"
    # A long text that states no answer in any known form may yet hold it: not for a rule to say.
    is_short = len(normal_text(answer).split()) <= len(wanted.split()) + 2
    return "incorrect" if stated or is_short else "unclear"


def normal_text(text: str) -> str:
    """The form that texts are compared in."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(_EDGES)


def _plain_number(text: str) -> Decimal | None:
    """The value of a text that is a number and nothing else but a sign of money or percent."""
    bare = text.lstrip(_EDGES.replace(".", "")).rstrip(_EDGES)
    return _value(bare) if _WHOLE_NUMBER.fullmatch(bare) else None


def _value(number: str) -> Decimal | None:
    try:
        return Decimal(number.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None
