"""Having items of a task written: what a writer and a judge are asked, and what is no item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from interpflow.tasks.nlp.builtin import builtin_items
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.typed_numbers import parse_number

ItemVerdict = Literal["correct", "incorrect", "unclear"]
ITEM_VERDICTS: tuple[ItemVerdict, ...] = get_args(ItemVerdict)
MAX_PROMPT_WORDS, MAX_ANSWER_WORDS = 60, 4
SHOWN_TASKS = ("world_facts", "antonyms", "addition")
ITEMS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "prompt": {"type": "string"},
                    "answer": {"type": "string"},
                    "accepted": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["prompt", "answer", "accepted"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["items"],
    "additionalProperties": False,
}


def items_question(task: str, description: str, n: int, avoid: Sequence[str] = ()) -> str:
    """What a writer is asked for `n` items of a task. avoid: prompts that there are already."""
    examples = [builtin_items(name, 1, 1)[0] for name in SHOWN_TASKS]
    shown = [
        json.dumps({"prompt": each.prompt, "answer": each.answer.strip(),
                    "accepted": list(each.accepted)}, ensure_ascii=False)
        for each in examples
    ]  # fmt: skip
    text = (
        f"Write {n} items of the task {json.dumps(task, ensure_ascii=False)}: {description}\n\n"
        "They are put to a small base language model such as gpt2, which only continues text: a "
        "prompt is the beginning of a plain sentence or line, without any instruction, and breaks "
        "off where its answer begins. The answer is as short as can be, at best one common word or "
        "number, and the only sensible one; list under `accepted` every answer that is as right, "
        "the answer itself among them. Items differ from each other in what is asked, not in "
        "wording alone. Items of other tasks, to show the form:\n" + "\n".join(shown)
    )
    if avoid:
        listed = "\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in avoid)
        text += f"\n\nThese there are already; write none that asks the same:\n{listed}"
    return text


def verdict_question(item: TaskItem, description: str) -> str:
    """What a judge is asked about an item; it is not told who wrote it."""
    others = [each for each in item.accepted if each != item.answer.strip()]
    also = f"\nAlso accepted: {json.dumps(others, ensure_ascii=False)}" if others else ""
    return (
        f"An item of a test ({description}): a text breaks off, and is to be continued.\n\n"
        f"Text: {json.dumps(item.prompt, ensure_ascii=False)}\n"
        f"Answer: {json.dumps(item.answer.strip(), ensure_ascii=False)}{also}\n\n"
        "Is the answer true, is every other accepted one as true, and is none missing that a "
        "careful reader would give as readily? Say correct or incorrect; say unclear if the text "
        "cannot be understood or opinions may differ."
    )


def read_item(task: str, written: Mapping[str, Any]) -> tuple[TaskItem, str]:
    """The item that was written, and why it is none, or "".

    Scored as a number where every answer is one, as a set where several are accepted, else exactly.
    """
    prompt = str(written["prompt"]).strip(" \t")
    answer = str(written["answer"]).strip()
    others = [str(each).strip() for each in written["accepted"]]
    accepted = tuple(each for each in dict.fromkeys([answer, *others]) if each)
    is_number = bool(accepted) and all(parse_number(each) is not None for each in accepted)
    item = TaskItem(
        task=task,
        prompt=prompt,
        answer=answer if prompt.endswith("\n") else f" {answer}",
        scorer="number" if is_number else "set" if len(accepted) > 1 else "exact",
        accepted=accepted,
        source="written",
    )
    return item, _form_problem(prompt, answer, accepted)


def _form_problem(prompt: str, answer: str, accepted: Sequence[str]) -> str:
    if not prompt.strip():
        return "form: empty prompt"
    if not answer:
        return "form: empty answer"
    if any("\n" in each for each in accepted):
        return "form: an answer of several lines"
    if any(len(each.split()) > MAX_ANSWER_WORDS for each in accepted):
        return "form: answer too long"
    if len(prompt.split()) > MAX_PROMPT_WORDS:
        return "form: prompt too long"
    if prompt.endswith(("?", "!", ".")):
        return "form: the prompt ends before its answer begins"
    return ""
