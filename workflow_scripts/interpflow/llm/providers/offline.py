"""The provider `offline`: an algorithm for each task, chosen by the item of an ask.

Answers depend on the item and the sample only. They are not kept in the store: they cost nothing,
and a mended algorithm must not be hidden by its old answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from interpflow.config.llm import RoleModel
from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse, Reading
from interpflow.llm.asks import Ask
from interpflow.llm.offline.answer_pairs import better_answer
from interpflow.llm.offline.contrast import contrast
from interpflow.llm.offline.item_verdict import item_verdict
from interpflow.llm.offline.items import Algorithm
from interpflow.llm.offline.question_meaning import question_meaning
from interpflow.llm.offline.rule_judge import compare_answer
from interpflow.llm.offline.template_items import template_items
from interpflow.llm.offline.template_lists import template_lists
from interpflow.llm.offline.template_rewrite import template_rewrite
from interpflow.llm.offline.word_membership import word_membership
from interpflow.llm.requests import Request, canonical_body

ALGORITHMS: dict[str, Algorithm] = {
    "membership": word_membership,
    "counting_lists": template_lists,
    "compare_answer": compare_answer,
    "better_answer": better_answer,
    "contrast": contrast,
    "robustness_rewrite": template_rewrite,
    "robustness_meaning": question_meaning,
    "surgery_items": template_items,
    "surgery_item_verdict": item_verdict,
}


def provider(settings: RoleModel) -> OfflineProvider:
    return OfflineProvider()


class OfflineProvider:
    """Runs the algorithm of an ask's task."""

    stored = False
    priced = False

    def request(self, ask: Ask) -> Request:
        """Raises UserError for an ask without an item, and for a task without an algorithm."""
        task = str(ask.item.get("task", ""))
        if task not in ALGORITHMS:
            raise UserError(
                f"no offline algorithm does the task {task!r}" if task else
                "the ask has no machine-readable item, which the offline algorithms need",
                where="llm.roles",
                remedy="let a language model play this role; the offline algorithms do: "
                f"{', '.join(ALGORITHMS)}",
            )  # fmt: skip
        return Request(
            provider="offline",
            model=model_of(task),
            endpoint=task,
            host="offline",
            api_version="",
            betas=(),
            body=canonical_body(ask.item),
            sample=ask.sample,
        )

    async def send(self, request: Request, timeout_s: float) -> RawResponse:
        return _response(request)

    def send_all(self, requests: Sequence[Request]) -> Iterator[tuple[Request, RawResponse]]:
        return ((request, _response(request)) for request in requests)

    def read(self, raw: RawResponse) -> Reading:
        try:
            content = json.loads(raw.body)
            answer, model = content["answer"], str(content["model"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return Reading("error", why="not a response of an offline algorithm")
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        return Reading("ok", text=text, model=model)

    def estimated_input_tokens(self, request: Request) -> int:
        return 0

    async def close(self) -> None:
        return None


def _response(request: Request) -> RawResponse:
    started = time.time()
    answer = ALGORITHMS[request.endpoint](request.content, request.sample)
    body = canonical_body({"answer": answer, "model": request.model})
    return RawResponse(body=body, sent_at=started, received_at=time.time())


def model_of(task: str) -> str:
    """The name under which the algorithm of a task appears in tables."""
    return f"offline:{ALGORITHMS[task].__name__}"
