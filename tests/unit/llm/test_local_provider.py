"""The provider of local models: exact choices, generated texts, draws, keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_chat_model import CHAT, NO_SYSTEM, save_tiny_chat_model

from interpflow.config.llm import RoleModel
from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse
from interpflow.llm.asks import Ask, Tool, Turn
from interpflow.llm.calls.answer_checks import check
from interpflow.llm.local_prompts import closed_answers, first_value, local_body, local_prompt
from interpflow.llm.providers import SendsMany, open_provider
from interpflow.models.acquire import load_transformer
from interpflow.tasks.word_problems import make_problems, read_answer

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_chat_model(tmp_path_factory.mktemp("base"), template=None)


def opened(directory: Path | None = None, **settings: Any):
    source = settings.pop("source", None) or ModelSettings(local=str(directory))
    role = RoleModel(provider="local", model="m", **settings)
    return open_provider(role, {"m": source})


def ask(text: str = "Is ruby a gem?", **more: Any) -> Ask:
    return Ask(id=text, turns=(Turn("user", text),), **{"max_tokens": 12, **more})


def answered(provider: Any, asks: Sequence[Ask]) -> list[tuple[Any, dict[str, Any]]]:
    """(reading, raw content) of each ask, in their order."""
    requests = [provider.request(each) for each in asks]
    raws = {request.key: raw for request, raw in provider.send_all(requests)}
    found = [raws[request.key] for request in requests]
    return [(provider.read(raw), json.loads(raw.body)) for raw in found]


CHOICES = ("yes", "no", "not sure")


def plain_scores(directory: Path, prompt: str, options: Sequence[str]) -> list[float]:
    """Log-probabilities of whole options after a prompt, one forward each."""
    model, tokenizer = load_transformer(directory)
    scores = []
    for option in options:
        start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        whole = tokenizer(prompt + option, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        scores.append(
            sum(float(logits[i - 1, whole[i]]) for i in range(len(start), len(whole)))
        )  # fmt: skip
    return scores


def test_choices_are_the_most_probable_option_of_a_chat_model(chat: Path) -> None:
    texts = [f"Is {word} a gem?" for word in ("ruby", "opal", "coal", "fig", "agate", "rope")]
    found = answered(opened(chat), [ask(text, choices=CHOICES, system="Judge.") for text in texts])
    for text, (reading, content) in zip(texts, found, strict=True):
        prompt = (
            f"<|system|>Judge.</s><|user|>{text}\nAnswer with exactly one of: yes, no, not sure"
            "</s><|assistant|>"
        )
        scores = plain_scores(chat, prompt, [f"{option}</s>" for option in CHOICES])
        assert content["log_probs"] == pytest.approx(scores, abs=1e-4)
        assert reading.text == CHOICES[max(range(3), key=scores.__getitem__)]
        assert reading.outcome == "ok"
    assert len({tuple(content["log_probs"]) for _, content in found}) == len(texts)


def test_choices_of_a_base_model(base: Path) -> None:
    ((reading, content),) = answered(opened(base), [ask(choices=CHOICES, system="Judge.")])
    prompt = "Judge.\n\nQuestion: Is ruby a gem?\nAnswer with exactly one of: yes, no, not sure"
    scores = plain_scores(base, prompt + "\nAnswer:", [f" {option}\n" for option in CHOICES])
    assert content["log_probs"] == pytest.approx(scores, abs=1e-4)
    assert reading.text in CHOICES
    assert reading.usage.input_tokens == len(prompt + "\nAnswer:")


@pytest.mark.parametrize(
    ("schema", "answers"),
    [
        ({"type": "boolean"}, ("true", "false")),
        ({"enum": ["a", 2, None]}, ('"a"', "2", "null")),
        ({"const": "x", "title": "t"}, ('"x"',)),
        (
            {
                "type": "object",
                "properties": {"verdict": {"type": "string", "enum": ["yes", "no"]}},
                "required": ["verdict"],
                "additionalProperties": False,
            },
            ('{"verdict": "yes"}', '{"verdict": "no"}'),
        ),
        ({"type": "string"}, ()),
        ({"enum": ["ab", "c"], "maxLength": 1}, ()),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, ()),
        ({"enum": list(range(65))}, ()),
    ],
)
def test_closed_schemas_are_scored(chat: Path, schema: Any, answers: tuple[str, ...]) -> None:
    asked = ask(schema=schema)
    assert closed_answers(local_body(asked, 99)) == answers
    if answers:
        ((reading, _),) = answered(opened(chat), [asked])
        assert reading.text in answers
        assert check(asked, reading).outcome == "ok"


def test_text_is_generated_the_same_alone_and_together(chat: Path) -> None:
    asks = [ask(f"Tell of {word}.", max_tokens=n) for n in (5, 9) for word in ("opal", "a rope")]
    together = [content["text"] for _, content in answered(opened(chat), asks)]
    alone = [answered(opened(chat), [each])[0][1]["text"] for each in asks]
    assert together == alone
    sent = opened(chat)
    raw = asyncio.run(sent.send(sent.request(asks[0]), 1.0))
    assert json.loads(raw.body)["text"] == alone[0]


def test_samples_are_draws_and_the_first_is_greedy(chat: Path) -> None:
    provider = opened(chat)
    asks = [ask(sample=sample, max_tokens=20) for sample in range(6)]
    texts = [content["text"] for _, content in answered(provider, asks)]
    assert len(set(texts)) == 6
    assert texts == [content["text"] for _, content in answered(provider, asks)]
    model, tokenizer = load_transformer(chat)
    ids = tokenizer("<|user|>Is ruby a gem?</s><|assistant|>", add_special_tokens=False)[
        "input_ids"
    ]
    for _ in range(20):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    greedy = tokenizer.decode(ids, skip_special_tokens=True)
    assert texts[0]
    assert texts[0] in greedy


def test_an_answer_cut_off_is_truncated_and_open_json_too(chat: Path) -> None:
    provider = opened(chat)

    def read(text: str, finish: str, wants_json: bool) -> tuple[str, str]:
        usage = {"input_tokens": 1, "output_tokens": 2}
        body = {"text": text, "finish_reason": finish, "wants_json": wants_json, "usage": usage,
                "model": "m"}  # fmt: skip
        reading = provider.read(RawResponse(json.dumps(body).encode()))
        return reading.outcome, reading.text

    assert read("a story", "length", False) == ("truncated", "a story")
    assert read("a story", "eos", False) == ("ok", "a story")
    assert read('Sure: {"a": [1]} and more', "length", True) == ("ok", '{"a": [1]}')
    assert read('{"a": [1', "length", True) == ("truncated", '{"a": [1')
    assert first_value("none") is None


def test_a_long_limit_is_cut_to_the_models_positions(tmp_path: Path) -> None:
    small = opened(save_tiny_chat_model(tmp_path, positions=80))
    ((reading, content),) = answered(small, [ask(max_tokens=4000)])
    assert content["usage"]["output_tokens"] <= 80 - content["usage"]["input_tokens"]
    assert reading.outcome in ("ok", "truncated")
    with pytest.raises(UserError, match="the model has 80 positions"):
        answered(small, [ask("a" * 100)])


def test_a_template_without_system_message_gets_it_in_the_first_turn(tmp_path: Path) -> None:
    for i, template in enumerate((NO_SYSTEM + CHAT, CHAT.replace("{{ message['role'] }}", "user"))):
        _, tokenizer = load_transformer(save_tiny_chat_model(tmp_path / str(i), template))
        body = local_body(ask("Is it?", system="Judge."), 9)
        text = local_prompt(tokenizer, body, chat=True).text
        assert "Judge." in text
        assert text.endswith("Is it?</s><|assistant|>")


def test_conversations_without_a_template(base: Path) -> None:
    turns = (Turn("user", "One?"), Turn("assistant", "1"), Turn("user", "Two?"))
    text = local_prompt(None, local_body(Ask("a", turns), 9), chat=False).text
    assert text == "Question: One?\nAnswer: 1\nQuestion: Two?\nAnswer:"


def test_the_key_holds_what_decides_the_answer(chat: Path, base: Path, tmp_path: Path) -> None:
    keys = {
        opened(chat).request(ask()).key,
        opened(base).request(ask()).key,  # same weights, no template
        opened(chat, max_tokens=5).request(ask()).key,
        opened(chat).request(ask("Another?")).key,
        opened(chat).request(ask(sample=1)).key,
        opened(chat).request(ask(system="s")).key,
        opened(chat, source=ModelSettings(local=str(chat), chat_template="never"))
        .request(ask()).key,
        opened(source=ModelSettings(reference="word_problems")).request(ask()).key,
    }  # fmt: skip
    assert len(keys) == 8
    assert opened(chat).request(ask()).key in keys
    host = opened(chat).request(ask()).host
    other = opened(source=ModelSettings(reference="word_problems")).request(ask()).host
    assert host.startswith("local:")
    assert host != other
    (save_tiny_chat_model(tmp_path) / "training.json").write_text("{}")
    assert opened(tmp_path).request(ask()).key in keys, "the place is part of the key"


def test_a_reference_model_solves_word_problems() -> None:
    """Its own prompt is the base format: the answers are right only if it is met exactly."""
    provider = opened(source=ModelSettings(reference="word_problems"))
    problems = make_problems(24, seed=5)
    asks = [
        Ask(id=p.problem_id, turns=(Turn("user", p.question),), max_tokens=60) for p in problems
    ]
    found = answered(provider, asks)
    right = [read_answer(reading.text) == p.answer for (reading, _), p in zip(found, problems)]
    assert sum(right) >= 20


def test_questions_are_sent_together(base: Path) -> None:
    assert isinstance(opened(base), SendsMany)


def test_what_a_local_model_cannot_do_is_said(chat: Path) -> None:
    provider = opened(chat)
    with pytest.raises(UserError, match="calls no tools"):
        provider.request(ask(tools=(Tool("t", "d", {}),)))
    with pytest.raises(UserError, match="text only"):
        provider.request(Ask("a", (Turn("user", [{"type": "text", "text": "x"}]),)))
    with pytest.raises(UserError, match="no model named 'm'"):
        open_provider(RoleModel(provider="local", model="m"), {})


@given(st.binary(max_size=60))
def test_any_response_is_read(body: bytes) -> None:
    assert opened(Path("/nowhere")).read(RawResponse(body)).outcome == "error"
