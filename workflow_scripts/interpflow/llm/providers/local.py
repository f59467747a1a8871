"""The provider `local`: a model under `models`, run on this machine through interpflow.inference.

Closed sets (choices; a schema that is an enumeration or a boolean) are answered by scoring every
option exactly: the answer is the most probable one, and always one of them. Everything else is
generated; nothing constrains it to a schema, which is checked afterwards as for any service.

Sample 0 is the greedy answer; other samples, and answers asked again, are draws from the model's
distribution (temperature 1) with a seed from the request's key.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from interpflow.config.llm import RoleModel
from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse, Reading, Usage
from interpflow.llm.asks import Ask
from interpflow.llm.local_prompts import (
    LocalPrompt,
    closed_answers,
    first_value,
    local_body,
    local_prompt,
)
from interpflow.llm.requests import Request, canonical_body
from interpflow.models.acquire import fetch
from interpflow.models.manifest import weights_revision
from interpflow.models.named import load_named, model_source
from interpflow.tables.provenance import file_digest

logger = logging.getLogger(__name__)

# Answered together: many rows for the model, and little lost when a run is killed.
TOGETHER = 256
# No tokenizer in use makes more tokens of a text than it has bytes.
HIDDEN_TOKENS = 200


def provider(settings: RoleModel, models: Mapping[str, ModelSettings]) -> LocalProvider:
    """Raises UserError for a model that is not under `models`."""
    name = settings.model or ""
    if name not in models:
        raise UserError(
            f"no model named {name!r}",
            where="llm.roles, provider local, model",
            remedy=f"name one under `models`: {', '.join(models)}",
        )
    return LocalProvider(settings, name, models[name])


class LocalProvider:
    """One model of the config; loaded when it is first asked."""

    stored = True
    priced = False

    def __init__(self, settings: RoleModel, name: str, model: ModelSettings) -> None:
        self.name = name
        self._settings, self._model = settings, model
        self._lock = Lock()
        self._loaded: tuple[Any, Any] | None = None

    def request(self, ask: Ask) -> Request:
        body = {
            **local_body(ask, self._settings.max_tokens),
            "dtype": self._model.dtype,
            "chat_template": self._model.chat_template,
            "files": self._files,
        }
        return Request(
            provider="local",
            model=self.name,
            endpoint="answer",
            host=f"local:{self._revision}",
            api_version="",
            betas=(),
            body=canonical_body(body),
            sample=ask.sample,
        )

    async def send(self, request: Request, timeout_s: float) -> RawResponse:
        ((_, raw),) = await asyncio.to_thread(lambda: list(self.send_all([request])))
        return raw

    def send_all(self, requests: Sequence[Request]) -> Iterator[tuple[Request, RawResponse]]:
        """Whole batches; UserError where the model cannot be loaded or a prompt does not fit."""
        with self._lock:
            if self._loaded is None and requests:
                self._loaded = load_named(self.name, self._model, device=self._settings.device)
            for some in self._batches(requests):
                started = time.time()
                contents = self._answers(some)
                for request, content in zip(some, contents, strict=True):
                    body = json.dumps({**content, "model": self.name}).encode()
                    yield request, RawResponse(body, sent_at=started, received_at=time.time())

    def read(self, raw: RawResponse) -> Reading:
        try:
            content = json.loads(raw.body)
            text, finish = str(content["text"]), content["finish_reason"]
            usage = Usage(
                input_tokens=int(content["usage"]["input_tokens"]),
                output_tokens=int(content["usage"]["output_tokens"]),
            )
            model, wants_json = str(content["model"]), bool(content["wants_json"])
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return Reading("error", why="not a response of a local model")
        value = first_value(text) if wants_json else None
        if value is not None:  # whatever the model went on to write
            return Reading("ok", text=value, usage=usage, model=model)
        if finish == "length":
            return Reading("truncated", text=text, usage=usage, model=model, why="max_tokens")
        return Reading("ok", text=text, usage=usage, model=model)

    def estimated_input_tokens(self, request: Request) -> int:
        return len(request.body) + HIDDEN_TOKENS

    async def close(self) -> None:
        self._loaded = None

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Requests that can be answered by one call: the same options, or none and one limit."""
        groups: dict[str, list[Request]] = {}
        for request in requests:
            content = request.content
            kind = json.dumps([content["choices"], content["schema"], content["max_tokens"]])
            groups.setdefault(kind, []).append(request)
        for group in groups.values():
            for start in range(0, len(group), TOGETHER):
                yield group[start : start + TOGETHER]

    def _answers(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        assert self._loaded is not None
        _, tokenizer = self._loaded
        template = getattr(tokenizer, "chat_template", None)
        chat = bool(template) and self._model.chat_template != "never"
        contents = [request.content for request in requests]
        prompts = [local_prompt(tokenizer, content, chat) for content in contents]
        if prompts[0].options:
            return _scored(*self._loaded, prompts, closed_answers(contents[0]))
        seeds = [
            int(request.key[:15], 16) if request.sample or request.ask_again else None
            for request in requests
        ]
        wants_json = bool(contents[0]["schema"])
        return _written(*self._loaded, prompts, seeds, contents[0]["max_tokens"], wants_json)

    @cached_property
    def _revision(self) -> str:
        return weights_revision(model_source(self.name, self._model))

    @cached_property
    def _files(self) -> str:
        """Digest of what else decides the answers: configuration, tokenizer, chat template."""
        if self._model.hub:
            return ""  # the commit pins them
        directory = Path(fetch(model_source(self.name, self._model)))
        digests = {
            path.name: file_digest(path)
            for pattern in ("*.json", "*.jinja", "*.model", "*.txt")
            for path in sorted(directory.glob(pattern))
            if path.name != "training.json"
        }
        return hashlib.sha256(canonical_body(digests)).hexdigest()


def _scored(
    model: Any, tokenizer: Any, prompts: Sequence[LocalPrompt], answers: Sequence[str]
) -> list[dict[str, Any]]:
    """The most probable of the same answers after each prompt, and the scores of all (nats)."""
    from interpflow.inference.scoring import score_answers

    options = prompts[0].options
    scores = score_answers(model, tokenizer, [prompt.text for prompt in prompts], options)
    counts = _token_counts(tokenizer, [prompt.text for prompt in prompts])
    ends = _token_counts(tokenizer, list(options))
    return [
        {
            "text": answers[scores.best[row]],
            "finish_reason": "scored",
            "wants_json": False,
            "usage": {"input_tokens": counts[row], "output_tokens": ends[scores.best[row]]},
            "options": list(answers),
            "log_probs": [float(value) for value in scores.log_prob[row]],
            "captured_mass": float(scores.captured_mass[row]),
        }
        for row in range(len(prompts))
    ]


def _written(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[LocalPrompt],
    seeds: Sequence[int | None],
    max_tokens: int,
    wants_json: bool,
) -> list[dict[str, Any]]:
    """Generated texts, in the prompts' order; as long as the model's positions allow."""
    from interpflow.inference.generation import generate

    counts = _token_counts(tokenizer, [prompt.text for prompt in prompts])
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [min(max_tokens, max((positions or max_tokens + n) - n, 1)) for n in counts]
    found: dict[int, dict[str, Any]] = {}
    for limit in sorted(set(limits)):
        rows = [row for row, its in enumerate(limits) if its == limit]
        texts = generate(
            model,
            tokenizer,
            [prompts[row].text for row in rows],
            max_new_tokens=limit,
            stop_strings=prompts[0].stops,
            seeds=[seeds[row] for row in rows],
        )
        for row, made in zip(rows, texts, strict=True):
            text = made.text
            if made.finish_reason == "stop_string":
                ends = [text.index(stop) for stop in prompts[0].stops if stop in text]
                text = text[: min(ends)]
            found[row] = {
                "text": text.strip(),
                "finish_reason": made.finish_reason,
                "wants_json": wants_json,
                "usage": {"input_tokens": counts[row], "output_tokens": len(made.token_ids)},
            }
    return [found[row] for row in range(len(prompts))]


def _token_counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
