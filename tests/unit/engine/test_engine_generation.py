"""Generation under intervention equals running everything anew for every token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny_models import hook_count, tiny_model, tiny_pairs
from torch import Tensor

from interpflow.engine import (
    COMPONENTS,
    AddDirection,
    Intervention,
    Noise,
    Patch,
    Scale,
    Site,
    ZeroAblation,
    all_sites,
    generate_with,
    generation,
)
from interpflow.engine.model import Model
from interpflow.errors import UserError

FAMILIES = ("llama_grouped", "mistral_window", "gemma2", "gpt2", "gpt_neox", "opt", "bloom",
            "falcon_old", "gpt_oss", "granite")  # fmt: skip
EVERY_COMPONENT = ("llama_grouped", "gpt2")
# transformers computes some steps in float32 whatever the model's type.
ATOL = {"gemma2": 1e-5, "mistral_window": 1e-5, "gpt_oss": 1e-5}
NEW = 4


def prompts() -> list[list[int]]:
    return [row[: 9 - 2 * i] for i, row in enumerate(tiny_pairs(2)[0])]


def everything_anew(
    model: Model, rows: list[list[int]], done: Sequence[Intervention]
) -> tuple[list[list[int]], list[Tensor]]:
    """Each prompt by itself, with whole passes only. Positions must not depend on where the
    prompt ends, nor noise on its number."""
    texts, logits = [], []
    for row in rows:
        ids, seen = list(row), []
        for _ in range(NEW):
            seen.append(model.patch(ids, done)[0])
            ids.append(int(seen[-1].argmax()))
        texts.append(ids[len(row) :])
        logits.append(torch.stack(seen))
    return texts, logits


def some_interventions(model: Model) -> dict[str, list[Intervention]]:
    """One list per component: at prompt positions, at all positions, on one head."""
    direction = torch.linspace(-1, 1, model.d_model, dtype=torch.float64)
    lists: dict[str, list[Intervention]] = {"none": []}
    for component in model.available_components:
        site = all_sites(model, [component], [1] if component != "embed" else None)[0]
        lists[component] = [Scale(site, factor=-1.5), ZeroAblation(site, 2)]
        lists[component].reverse()
    lists["several"] = [
        AddDirection(Site("resid_post", 1), direction=direction),
        Scale(Site("head_out", 0), heads=[0, 2], factor=2.0),
        Scale(Site("resid_post", 1), [1, 3], factor=0.5),
    ]
    if "pattern" in lists:
        lists["cut"] = [ZeroAblation(Site("pattern", 1), heads=[0], neurons=[0, 1, 9])]
        lists["keys"] = [
            Scale(Site("k", 0), [0, 2], factor=3.0),
            Scale(Site("v", 2), factor=2.0, neurons=[1, 2]),
        ]
    return lists


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cache_changes_nothing(name: str) -> None:
    model = tiny_model(name)
    assert model.cache_is_exact
    rows = prompts()
    plain = generate_with(model, rows, max_new_tokens=NEW)
    for what, done in some_interventions(model).items():
        if what in COMPONENTS and name not in EVERY_COMPONENT:
            continue
        fast = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True)
        slow = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True, cache=False)
        texts, logits = everything_anew(model, rows, done)
        for row in range(2):
            assert fast[row].ids == slow[row].ids == tuple(texts[row]), what
            for found in (fast[row].logits, slow[row].logits):
                assert torch.allclose(found, logits[row], atol=ATOL.get(name, 1e-11), rtol=0), what
        changed = any(f.ids != p.ids for f, p in zip(fast, plain))
        first = generate_with(model, rows, max_new_tokens=1, keep_logits=True)
        moved = max(
            float((f.logits[0] - p.logits[0]).abs().max()) for f, p in zip(fast, first)
        )  # fmt: skip
        assert (changed or moved > 1e-3) == (what != "none"), what
    assert hook_count(model) == 0


def test_without_interventions_it_is_transformers_greedy_text() -> None:
    model = tiny_model("llama_grouped")
    row = prompts()[0]
    found = generate_with(model, row, max_new_tokens=NEW)[0]
    settings = {"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0, "eos_token_id": None}
    whole = model.module.generate(torch.tensor([row]), **settings)  # type: ignore[operator]
    assert found.ids == tuple(whole[0, len(row) :].tolist())
    assert not found.stopped


def test_positions_after_the_prompt() -> None:
    """ "generated" leaves the prompt alone; numbers name later positions before they exist."""
    model = tiny_model("gpt2")
    site = Site("resid_post", 1)
    direction = torch.linspace(-3, 3, 32, dtype=torch.float64)
    for rows in ([prompts()[0]], prompts()):
        plain = generate_with(model, rows, max_new_tokens=NEW, keep_logits=True)
        for positions, unchanged in (("generated", 1), (range(len(rows[0]) + 2, 13), 3)):
            done = [AddDirection(site, positions, direction=direction)]
            fast = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True)
            slow = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True,
                                 cache=False)  # fmt: skip
            assert [f.ids for f in fast] == [s.ids for s in slow]
            n = unchanged
            assert torch.allclose(fast[0].logits[:n], plain[0].logits[:n], atol=1e-11)
            assert not torch.allclose(fast[0].logits[n], plain[0].logits[n], atol=1e-3)
    with pytest.raises(UserError, match="position 40 lies outside"):
        generate_with(model, prompts(), [ZeroAblation(site, 40)], max_new_tokens=NEW)


def test_patches_and_noise_act_on_the_prompt() -> None:
    model = tiny_model("llama_grouped")
    rows, donors = prompts(), [row[: 9 - 2 * i] for i, row in enumerate(tiny_pairs(2)[1])]
    for component in ("pattern", "resid_post", "k", "v", "mlp_act"):
        site = all_sites(model, [component], [1])[0]
        done: list[Intervention] = [Patch(site, donor=donors)]
        if component != "pattern":
            done.append(Noise(site, "prompt", sd=0.3, seed=2))
        fast = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True)
        slow = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True, cache=False)
        for f, s in zip(fast, slow):
            assert f.ids == s.ids
            assert torch.allclose(f.logits, s.logits, atol=1e-11)
        assert torch.allclose(fast[1].logits[0], model.patch(rows, done)[1], atol=1e-11)
    values = model.capture(donors, site)[site]
    with pytest.raises(UserError, match=r"no values? for position"):
        generate_with(model, rows, [Patch(site, "all", values)], max_new_tokens=NEW)


def test_whole_heads_of_a_pattern_may_be_patched() -> None:
    model = tiny_model("llama_grouped")
    rows, donors = [prompts()[0]], [tiny_pairs(2)[1][0][:9]]
    done = [Patch(Site("pattern", 1), donor=donors)]
    fast = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True)[0]
    slow = generate_with(model, rows, done, max_new_tokens=NEW, keep_logits=True, cache=False)[0]
    assert fast.ids == slow.ids
    assert torch.allclose(fast.logits, slow.logits, atol=1e-11)


def test_drawn_tokens_depend_on_the_seed_the_row_and_the_step() -> None:
    model = tiny_model("llama")
    rows = [prompts()[0]] * 40

    def drawn(**settings: int) -> list[tuple[int, ...]]:
        made = generate_with(model, rows, max_new_tokens=3, temperature=1.0, **settings)
        return [one.ids for one in made]

    assert drawn(seed=1) == drawn(seed=1, batch_tokens=12)
    assert drawn(seed=1) != drawn(seed=2)
    assert len(set(drawn(seed=1))) > 20
    cold = generate_with(model, rows[:3], max_new_tokens=3, temperature=1e-4)
    assert [c.ids for c in cold] == [c.ids for c in generate_with(model, rows[:3],
                                                                 max_new_tokens=3)]  # fmt: skip
    # Frequencies of the first token are those of the softmax.
    many = generate_with(model, [rows[0]] * 2000, max_new_tokens=1, temperature=2.0)
    share = (model.last_logits(rows[0])[0] / 2).softmax(0)
    counts = torch.bincount(torch.tensor([m.ids[0] for m in many]), minlength=50) / 2000
    assert float((counts - share).abs().max()) < 0.04


def test_stop_tokens_end_a_row() -> None:
    model = tiny_model("gpt2")
    rows = prompts()
    plain = [c.ids for c in generate_with(model, rows, max_new_tokens=NEW)]
    stop = plain[0][2]
    for cut, ids in zip(generate_with(model, rows, max_new_tokens=NEW, stop_ids=[stop],
                                      keep_logits=True), plain):  # fmt: skip
        n = ids.index(stop) if stop in ids else NEW
        assert cut.ids == ids[:n]
        assert cut.stopped == (stop in ids)
        assert len(cut.logits) == min(n + 1, NEW)


def test_recurrent_models_are_run_anew() -> None:
    model = tiny_model("lfm2", "float64")
    assert not model.cache_is_exact
    done = [Scale(Site("resid_post", 1), factor=1.5)]
    fast = generate_with(model, prompts(), done, max_new_tokens=3)
    texts, _ = everything_anew(model, prompts(), done)
    assert [f.ids for f in fast] == [tuple(text[:3]) for text in texts]


def test_a_forgotten_key_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of earlier positions changed only once, when the prompt is read: not the same text."""
    model = tiny_model("llama_grouped")
    done = some_interventions(model)["keys"]
    right = generate_with(model, prompts(), done, max_new_tokens=NEW, keep_logits=True)
    real = generation.changes

    def forgetful(*args: object, first: int = 0, **kwargs: object) -> list:
        made = real(*args, first=first, **kwargs)  # type: ignore[arg-type]
        return [change for change in made if bool((change.places >= 0).all())]

    monkeypatch.setattr(generation, "changes", forgetful)
    wrong = generate_with(model, prompts(), done, max_new_tokens=NEW, keep_logits=True)
    assert not torch.allclose(wrong[0].logits[1], right[0].logits[1], atol=1e-3)


def test_wrong_calls_are_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(UserError, match="cannot generate 0 tokens"):
        generate_with(model, prompts(), max_new_tokens=0)
    with pytest.raises(UserError, match="the model has 64 positions"):
        generate_with(model, prompts(), max_new_tokens=60)
    model.module.model.layers[1].mlp.down_proj.weight.data[0] = float("inf")
    with pytest.raises(UserError, match="the logits are not finite"):
        generate_with(model, prompts(), max_new_tokens=2)
