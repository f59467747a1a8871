from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from interpflow.errors import UserError
from interpflow.inference.generation import generate
from interpflow.models.tokens import encode

PROMPTS = [
    "Count the words.\nType: fruit\nList: [apple pear dog]\nAnswer: (",
    "Answer: (",
    "Type: animal\nList: [dog cat fig oak oak fig apple]\nAnswer: (",
    "Type",
]


def greedy(model, tokenizer, prompt, n):
    """New ids from one full forward per token, without a cache."""
    ids = list(encode(tokenizer, prompt).ids)
    start = len(ids)
    for _ in range(n):
        with torch.no_grad():
            token = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()
        if token.item() == tokenizer.eos_token_id:
            break
        ids.append(token.item())
    return tuple(ids[start:])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral_window", "bloom"])
@pytest.mark.parametrize("token_budget", [1, 8192])
def test_equals_forward_by_forward(tiny, kind, token_budget):
    model, tokenizer = tiny(kind)
    found = generate(model, tokenizer, PROMPTS, max_new_tokens=8, token_budget=token_budget)
    assert [item.token_ids for item in found] == [
        greedy(model, tokenizer, prompt, 8) for prompt in PROMPTS
    ]
    assert len({item.token_ids for item in found}) > 1


def test_only_new_text(tiny):
    model, tokenizer = tiny()
    item = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=8)[0]
    assert item.text == tokenizer.decode(item.token_ids)
    assert not item.text.startswith("Count")
    assert item.finish_reason == "length"


def test_stored_settings_are_not_used_and_are_kept(tiny):
    model, tokenizer = tiny()
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    stored = model.generation_config
    hostile = GenerationConfig(
        do_sample=True,
        temperature=9.0,
        no_repeat_ngram_size=1,
        repetition_penalty=5.0,
        num_beams=2,
        suppress_tokens=[item.token_ids[0] for item in plain],
        min_new_tokens=1,
    )
    model.generation_config = hostile
    try:
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=12) == plain
        assert model.generation_config is hostile
    finally:
        model.generation_config = stored


def test_end_token_ends_and_is_left_out(tiny):
    model, tokenizer = tiny()
    plain = generate(model, tokenizer, PROMPTS[:2], max_new_tokens=6)
    stored = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=[plain[0].token_ids[3]])
    try:
        found = generate(model, tokenizer, PROMPTS[:2], max_new_tokens=6)
    finally:
        model.generation_config = stored
    first = plain[0].token_ids.index(plain[0].token_ids[3])
    assert found[0].finish_reason == "eos"
    assert found[0].token_ids == plain[0].token_ids[:first]


def test_stop_string_ends_the_text(tiny):
    model, tokenizer = tiny()
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=10)
    stop = plain[0].text[3:5]
    found = generate(model, tokenizer, PROMPTS, max_new_tokens=10, stop_strings=[stop])
    cut = plain[0].text.index(stop) + len(stop)
    assert found[0].finish_reason == "stop_string"
    assert found[0].text == plain[0].text[:cut]
    assert len(found[0].token_ids) < 10
    for before, after in zip(plain, found):
        assert before.text.startswith(after.text)


def test_equal_prompts_give_equal_rows(tiny):
    found = generate(*tiny(), ["Type", "List", "Type"], max_new_tokens=4)
    assert found[0] == found[2]
    assert len(found) == 3


def test_no_prompts(tiny):
    assert generate(*tiny(), [], max_new_tokens=4) == []


def test_unfit_requests(tiny):
    model, tokenizer = tiny("gpt2")
    with pytest.raises(UserError, match="positive"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=0)
    with pytest.raises(UserError, match="256 positions"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=256)
    with pytest.raises(UserError, match="empty prompt"):
        generate(*tiny(bos=False), [""], max_new_tokens=1)
