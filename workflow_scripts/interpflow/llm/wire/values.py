"""Values in a service's JSON taken for what they should be, and for nothing else."""

from __future__ import annotations

from typing import Any

from interpflow.llm.answers import RawResponse, Reading
from interpflow.llm.wire.service_failures import request_id_in

LONGEST_NAME = 200
# What services and chat templates add around a prompt unseen, at most: to any, and for tools and
# structured output (Anthropic names up to about 700 tokens for tools).
HIDDEN_TOKENS = 200
HIDDEN_TOKENS_STRUCTURED = 1500
_STRUCTURED = (b'"tools":', b'"output_config":', b'"response_format":')


def whole_number(value: Any) -> int:
    """A count; 0 for anything else, such as more than any service takes or gives: its price would
    not fit the books."""
    fit = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if fit else 0


def model_name(value: Any) -> str:
    """The name of a model; "" for anything else."""
    fit = isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_NAME
    return value if fit else ""


def without_surrogates(text: str) -> str:
    """Lone halves of surrogate pairs, which JSON allows and no file takes, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def unreadable(raw: RawResponse, why: str) -> Reading:
    return Reading("error", request_id=request_id_in(raw.headers), why=why)


def most_input_tokens(body: bytes) -> int:
    """A bound on a request's input tokens that holds for any text: no tokenizer makes more tokens
    than bytes. For prose it is about four times too much."""
    structured = any(name in body for name in _STRUCTURED)
    return len(body) + (HIDDEN_TOKENS_STRUCTURED if structured else HIDDEN_TOKENS)
