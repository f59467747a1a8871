"""What is asked of a language model, before any provider's wire format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Role = Literal["generator", "validator", "judge", "proposer", "interrogator", "agent"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    `content` is text, or a list of content blocks (a tool's call or result) in the Messages format
    of the `anthropic` provider, which the other providers translate.
    """

    speaker: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]


@dataclass(frozen=True)
class Tool:
    """A tool that the model may call; `parameters` is the JSON schema of its input."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Ask:
    """One question to one role. Equal asks with equal `sample` are bought once.

    `schema` (JSON schema) makes the answer structured; `choices` makes it one of a closed set. At
    most one of the two is given. `item` is the same question in machine-readable form, with the key
    "task": what the offline algorithms read. It is never sent to a service and is no part of the
    request's key. `id` is the caller's own name for the ask: answers are joined by it, never by
    position. `tool_choice` is "auto", "any" (some tool must be called), "none", or the name of the
    tool that must be called.
    """

    id: str
    turns: tuple[Turn, ...]
    system: str = ""
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    max_tokens: int = 1024
    sample: int = 0
    item: Mapping[str, Any] = field(default_factory=dict)
    tool_choice: str = "auto"
