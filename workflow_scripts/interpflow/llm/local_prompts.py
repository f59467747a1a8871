"""How an ask is put to a model on this machine: what it reads, and the closed set it may answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.errors import UserError
from interpflow.llm.asks import Ask
from interpflow.models.tokens import render_chat

# Part of every request: texts made in another way must not be taken for these.
PROMPT_FORMAT = 1
# A closed set of more answers is better generated than scored one by one.
MAX_OPTIONS = 64
# What a model without a chat template writes when it has answered and begins to ask itself.
BASE_STOP = "\nQuestion:"


@dataclass(frozen=True)
class LocalPrompt:
    """`text` is what the model continues; options, if any, are exactly what may follow it."""

    text: str
    options: tuple[str, ...]
    stops: tuple[str, ...]


def local_body(ask: Ask, longest: int) -> dict[str, Any]:
    """The part of a request's body that says what is asked. Raises UserError for tools and for
    content that is not text."""
    if ask.tools:
        raise UserError(
            "a local model calls no tools",
            where="llm.roles, provider local",
            remedy="let a service play this role",
        )
    if not all(isinstance(turn.content, str) for turn in ask.turns):
        raise UserError("a local model reads turns of text only", where="llm.roles, provider local")
    return {
        "format": PROMPT_FORMAT,
        "system": ask.system,
        "turns": [{"role": turn.speaker, "content": turn.content} for turn in ask.turns],
        "choices": list(ask.choices),
        "schema": ask.schema,
        "max_tokens": min(ask.max_tokens, longest),
    }


def closed_answers(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Every answer that the choices or the schema of a body allow; none where they are open.

    A schema is closed when it is an enumeration, a constant or a boolean, or an object of one such
    property and no other.
    """
    if content["choices"]:
        return tuple(content["choices"])
    values = _values(content["schema"] or {})
    return tuple(json.dumps(value, ensure_ascii=False) for value in values or ())


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values that a schema allows, when few and known; null otherwise."""
    found: list[Any] | None = None
    if set(schema) <= {"enum", "type", "title", "description"} and "enum" in schema:
        found = list(schema["enum"])
    elif set(schema) <= {"const", "type", "title", "description"} and "const" in schema:
        found = [schema["const"]]
    elif set(schema) <= {"type", "title", "description"} and schema.get("type") == "boolean":
        found = [True, False]
    elif set(schema) <= {"type", "properties", "required", "additionalProperties", "title"}:
        properties = schema.get("properties") or {}
        if len(properties) == 1 and list(schema.get("required", ())) == list(properties):
            (name, inner), *_ = properties.items()
            values = _values(inner)
            found = None if values is None else [{name: value} for value in values]
    return found if found and len(found) <= MAX_OPTIONS else None


def local_prompt(tokenizer: Any, content: Mapping[str, Any], chat: bool) -> LocalPrompt:
    """The text of a body. `chat`: in the tokenizer's chat template; else as question and answer."""
    options = closed_answers(content)
    turns = [dict(turn) for turn in content["turns"]]
    turns[-1]["content"] += _instruction(content, options)
    if chat:
        # The end of the turn is part of an answer, so that no option begins another.
        end = tokenizer.eos_token or "\n"
        text = _chat_text(tokenizer, content["system"], turns)
        return LocalPrompt(text, tuple(option + end for option in options), ())
    lines = [content["system"], ""] if content["system"] else []
    labels = {"user": "Question:", "assistant": "Answer:"}
    lines += [f"{labels[turn['role']]} {turn['content']}" for turn in turns]
    stops = (BASE_STOP, "\n\n") if content["schema"] else (BASE_STOP,)
    return LocalPrompt(
        "\n".join([*lines, "Answer:"]), tuple(f" {option}\n" for option in options), stops
    )


def _instruction(content: Mapping[str, Any], options: Sequence[str]) -> str:
    if options:
        return f"\nAnswer with exactly one of: {', '.join(options)}"
    if content["schema"]:
        schema = json.dumps(content["schema"], ensure_ascii=False)
        return f"\nAnswer with JSON that meets this schema, and with nothing else: {schema}"
    return ""


def _chat_text(tokenizer: Any, system: str, turns: list[dict[str, str]]) -> str:
    from jinja2 import TemplateError

    spoken = [{"role": "system", "content": system}] if system else []
    try:
        rendered = render_chat(tokenizer, [*spoken, *turns])
        # Some templates leave a system message out without a word.
        if system.strip() in rendered:
            return rendered
    except TemplateError:
        pass
    first, *rest = turns
    merged = {**first, "content": f"{system}\n\n{first['content']}".strip()}
    try:
        return render_chat(tokenizer, [merged, *rest])
    except TemplateError as error:
        raise UserError(
            f"the chat template refuses the conversation: {error}",
            where=str(tokenizer.name_or_path),
            remedy="set chat_template: never for this model",
        ) from None


def first_value(text: str) -> str | None:
    """The first whole JSON object or array in a text; null where there is none."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        return None
    start = min(starts)
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return text[start:end]
