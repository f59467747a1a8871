"""Text generated under a layer plan is what running everything anew gives."""

from __future__ import annotations

import pytest
import torch
from test_layer_plans import documents
from tiny_models import hook_count, tiny_model, tiny_pairs
from torch import Tensor

from interpflow.engine import generate_with
from interpflow.engine.layers import generate
from interpflow.engine.layers.execute import PlanRunner
from interpflow.engine.layers.generate import generate_with_plan
from interpflow.errors import UserError
from interpflow.plans.layer_plan import LayerPlan

NEW = 5
CACHED = ("gpt2", "llama_grouped", "gpt_neox", "gemma2", "gemma3", "mistral_window", "opt",
          "granite", "gpt_oss")  # fmt: skip
ANEW = ("bloom", "falcon_old", "lfm2")
PLANS = ("0 1 2", "0 2", "-", "0 1 1 1 2 0 2", "(0|1) 2", "(1|1) 0", "0 1*-0.5 2",
         "0 1~mean_attention 2", "0 1~zero_head2 1 2", "0 1~resample_mlp*0.5 2",
         "0 2~patch_attention 1", "0 1~patch_block 1 2", "1~mean_block 2")  # fmt: skip


def prompts() -> list[list[int]]:
    return [row[: 9 - 2 * i] for i, row in enumerate(tiny_pairs(3)[0])]


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_for_each_step_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name)
    settings = {"max_new_tokens": NEW, "neutral": documents(), "donors": [[5, 6, 7], [9], [3, 4]]}
    for text in PLANS:
        plan = LayerPlan.parse(text)
        seen: dict[bool, dict[tuple[int, int], Tensor]] = {True: {}, False: {}}
        texts = []
        for cache in (True, False):

            def keep(rows: list[int], logits: Tensor, into: dict = seen[cache]) -> None:
                for row, each in zip(rows, logits):
                    into[row, sum(row == before for before, _ in into)] = each

            texts.append(
                generate_with_plan(model, plan, prompts(), cache=cache, watch=keep, **settings)  # type: ignore[arg-type]
            )
        assert texts[0] == texts[1], text
        assert len(seen[True]) == 3 * NEW
        for key, logits in seen[False].items():
            assert torch.allclose(seen[True][key], logits, atol=1e-5, rtol=1e-5), text
    # And the cache was used: running anew is forbidden.
    monkeypatch.setattr(generate, "_anew", None)
    assert generate_with_plan(model, plan, prompts(), **settings) == texts[0]  # type: ignore[arg-type]
    assert hook_count(model) == 0


@pytest.mark.parametrize("name", [*CACHED, *ANEW])
def test_it_is_the_runners_next_token_each_time(name: str) -> None:
    model = tiny_model(name)
    plan = LayerPlan.parse("0 1 1 2")
    found = generate_with_plan(model, plan, prompts(), max_new_tokens=3)
    for prompt, tokens in zip(prompts(), found):
        ids = list(prompt)
        for token in tokens:
            runner = PlanRunner(model, [plan])
            (end,) = runner.states([ids], [[len(ids) - 1]])
            assert int(runner.unembed(end.states)[0].argmax()) == token
            ids.append(token)
    plain = generate_with_plan(model, LayerPlan.of(range(3)), prompts(), max_new_tokens=3)
    assert plain == [list(each.ids) for each in generate_with(model, prompts(), max_new_tokens=3)]
    assert found != plain


def test_an_end_is_not_part_of_the_text() -> None:
    model = tiny_model("llama")
    plan = LayerPlan.parse("0 2")
    whole = generate_with_plan(model, plan, prompts(), max_new_tokens=6)
    end = whole[0][2]
    found = generate_with_plan(model, plan, prompts(), max_new_tokens=6, ends=[end])
    for row, every in zip(found, whole):
        assert row == (every[: every.index(end)] if end in every else every)


def test_what_cannot_be_generated_is_named() -> None:
    model = tiny_model("gpt2")
    plan = LayerPlan.of(range(3))
    with pytest.raises(UserError, match="model has 64 positions"):
        generate_with_plan(model, plan, prompts(), max_new_tokens=57)
    with pytest.raises(UserError, match="no block 3"):
        generate_with_plan(model, LayerPlan.of([3]), prompts(), max_new_tokens=1)
    # A text may outlast the documents that it is resampled from.
    found = generate_with_plan(
        model, LayerPlan.parse("0~resample_mlp"), prompts(), max_new_tokens=10,
        neutral=documents(),
    )  # fmt: skip
    assert all(len(text) == 10 for text in found)
