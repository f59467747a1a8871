"""The draws of one question: the request, and the same again where the answer was none.

An answer that meets no schema, or a body that cannot be read, is kept and never bought again under
its key; the question is asked anew as another draw (`ask_again` + 1), at most twice for a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interpflow.llm.answers import FINAL_OUTCOMES, Answer, RawResponse, Reading
from interpflow.llm.asks import Ask
from interpflow.llm.calls.answer_checks import Checked, check
from interpflow.llm.providers import Provider
from interpflow.llm.requests import Request

if TYPE_CHECKING:
    from interpflow.llm.bought.store import Store, Stored

MOST_INVALID = 3
# USD of a response to a request, from what it says of its usage and how it came.
Cost = Callable[[Request, Reading, RawResponse], float]


@dataclass(frozen=True)
class Draw:
    """One bought response and what it is for its question."""

    request: Request
    reading: Reading
    checked: Checked
    cost_usd: float
    from_store: bool


@dataclass
class Question:
    """Asks with one and the same request. `ask` is the first of them; `failure` says why there is
    no answer."""

    ask: Ask
    request: Request
    same: list[Ask] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    failure: str = ""

    @property
    def key(self) -> str:
        return self.request.key

    @property
    def answered(self) -> bool:
        return bool(self.draws) and self.draws[-1].checked.outcome in FINAL_OUTCOMES

    def following(self) -> Request:
        """The request of the next draw."""
        return self.request.again(len(self.draws))

    def may_ask(self, max_attempts: int) -> bool:
        """Whether another draw is worth its money."""
        if self.answered:
            return False
        n_invalid = sum(draw.checked.outcome == "invalid" for draw in self.draws)
        return n_invalid < MOST_INVALID and len(self.draws) < max(max_attempts, 1)


def questions(asks: Sequence[Ask], provider: Provider) -> list[Question]:
    """Distinct requests in the order of their first asks."""
    by_key: dict[str, Question] = {}
    for ask in asks:
        request = provider.request(ask)
        by_key.setdefault(request.key, Question(ask, request)).same.append(ask)
    return list(by_key.values())


def draw_of(
    question: Question, request: Request, raw: RawResponse, provider: Provider,
    cost: Cost, from_store: bool = False,
) -> Draw:  # fmt: skip
    """Read a response and price it."""
    reading = provider.read(raw)
    usd = cost(request, reading, raw)
    return Draw(request, reading, check(question.ask, reading), usd, from_store)


def look_up(
    store: Store,
    asked: Sequence[Question],
    provider: Provider,
    cost: Cost,
    settle: Callable[[Question, Draw], None],
) -> None:
    """Append to each question the draws that the store holds of it.

    What they are is read anew from the raw responses. `settle` is called for those whose derived
    columns are missing, of a job killed after the purchase, or say otherwise.
    """
    for question in asked:
        question.draws.clear()
    left = list(asked)
    while left:
        requests = {question.following().key: question for question in left}
        stored = store.find(list(requests), any_outcome=True)
        for key, question in requests.items():
            if key in stored:
                _append(question, stored[key], provider, cost, settle)
        left = [q for key, q in requests.items() if key in stored and not q.answered]


def _append(
    question: Question, stored: Stored, provider: Provider, cost: Cost,
    settle: Callable[[Question, Draw], None],
) -> None:  # fmt: skip
    known = stored.cost_usd
    price = cost if known is None else lambda *_: known
    draw = draw_of(question, question.following(), stored.raw, provider, price, from_store=True)
    question.draws.append(draw)
    if known is None or stored.outcome != draw.checked.outcome:
        settle(question, draw)


def answers_of(question: Question) -> list[Answer]:
    """One answer per ask of the question; outcome "error" where nothing came."""
    return [_answer(question, ask) for ask in question.same]


def _answer(question: Question, ask: Ask) -> Answer:
    if not question.draws:
        return Answer(
            id=ask.id, key=question.key, outcome="error", text="", data=None, tool_calls=(),
            usage=Reading("error").usage, cost_usd=0.0, model="", from_store=False,
            why=question.failure,
        )  # fmt: skip
    draw = question.draws[-1]
    reading, checked = draw.reading, draw.checked
    return Answer(
        id=ask.id, key=draw.request.key, outcome=checked.outcome, text=reading.text,
        data=checked.data, tool_calls=reading.tool_calls, usage=reading.usage,
        cost_usd=sum(each.cost_usd for each in question.draws), model=reading.model,
        from_store=all(each.from_store for each in question.draws),
        why=checked.why or question.failure,
    )  # fmt: skip
