from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_runs import MAKERS, logit_differences, mlps, planted, projections, states, tokens
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from interpflow.errors import UserError
from interpflow.models.planted import TASKS, PlantedPair, Task, roles_of
from interpflow.models.planted.answers import answer_strengths
from interpflow.models.planted.features import D_MODEL, N_FEATURES, reading, writing
from interpflow.models.planted.heads import HEAD_DIM, ROPE_THETA
from interpflow.models.planted.pairs import make_pairs
from interpflow.models.planted.plan import N_HEADS, N_KV_HEADS
from interpflow.models.planted.vocabulary import (
    LETTERS,
    MARKERS,
    NO_MATCH,
    PROMPT_LENGTH,
    QUERY,
    TOKENS,
)

BOTH = pytest.mark.parametrize("name", MAKERS)
EACH_TASK = pytest.mark.parametrize("task", TASKS)


def solved(prompt: tuple[int, ...]) -> str:
    """What the prompt asks for, worked out from its tokens alone."""
    words = [TOKENS[i] for i in prompt]
    if words[-1] == QUERY:
        return str(sum(word in MARKERS for word in words))
    earlier = [i for i, word in enumerate(words[:-1]) if word == words[-1]]
    assert len(earlier) <= 1
    return words[earlier[0] + 1] if earlier else NO_MATCH


def attention(name: str, task: Task, pairs: tuple[PlantedPair, ...]) -> list[torch.Tensor]:
    """Per layer [pair, head, query, key] on the clean prompts."""
    module = MAKERS[name](task).module
    module.set_attn_implementation("eager")
    with torch.no_grad():
        found = module(input_ids=tokens(pairs, "clean"), output_attentions=True)
    return list(found.attentions)


@EACH_TASK
def test_pairs_are_what_they_say(task: Task) -> None:
    pairs = make_pairs(task, 300, seed=3)
    assert pairs == make_pairs(task, 300, seed=3)
    assert pairs != make_pairs(task, 300, seed=4)
    for pair in pairs:
        assert len(pair.clean) == len(pair.corrupted) == PROMPT_LENGTH
        assert tuple(TOKENS[i] for i in pair.answers) == (
            solved(pair.clean),
            solved(pair.corrupted),
        )
        assert pair.answers[0] != pair.answers[1]
        differ = np.flatnonzero(np.array(pair.clean) != np.array(pair.corrupted))
        assert tuple(differ) == tuple(sorted(pair.spans["changed"]))
        assert pair.spans["answer"] == (PROMPT_LENGTH - 1,)
    answers = {TOKENS[pair.answers[0]] for pair in pairs}
    assert answers == ({str(i) for i in range(7)} if task == "counting" else set(LETTERS))


@EACH_TASK
@BOTH
def test_every_prompt_is_solved(name: str, task: Task) -> None:
    model = planted(name, task)
    pairs = model.make_pairs(300, seed=0)
    for side, column in (("clean", 0), ("corrupted", 1)):
        with torch.no_grad():
            logits = model.module(input_ids=tokens(pairs, side)).logits[:, -1]
        right = torch.tensor([pair.answers[column] for pair in pairs])
        assert torch.equal(logits.argmax(-1), right)
        best = logits.topk(2).values
        assert float((best[:, 0] - best[:, 1]).min()) > 1


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_solve_them_too(name: str, dtype: torch.dtype) -> None:
    model = MAKERS[name]("counting")
    for task in ("counting", "induction"):  # the same weights
        pairs = make_pairs(task, 60, seed=1)
        with torch.no_grad():
            logits = model.module.to(dtype)(input_ids=tokens(pairs, "clean")).logits[:, -1]  # type: ignore[call-arg]
        assert logits.argmax(-1).tolist() == [pair.answers[0] for pair in pairs]


def test_llama_shares_keys_and_values() -> None:
    module = planted("llama", "induction").module
    assert isinstance(module, LlamaForCausalLM)
    assert module.config.num_key_value_heads == N_KV_HEADS < N_HEADS
    assert module.model.layers[0].self_attn.k_proj.weight.shape == (N_KV_HEADS * HEAD_DIM, D_MODEL)


@EACH_TASK
@BOTH
def test_dead_parts_have_zero_weights_and_live_ones_move(name: str, task: Task) -> None:
    model = planted(name, task)
    pairs = model.make_pairs(12, seed=2)
    both = [states(model, tokens(pairs, side)) for side in ("clean", "corrupted")]
    outputs = [p.weight.T if name == "gpt2" else p.weight for p in projections(model)]
    assert {site.role for site in model.truth} == {"needed", "irrelevant", "dead"}
    for site in model.truth:
        assert bool(site.acts_at) == (site.role == "needed")
        assert bool(site.does) == (site.role != "dead")
        if site.component == "mlp_out":
            moved = not torch.equal(both[0][1][site.layer], both[1][1][site.layer])
            alive = any(bool(weight.any()) for weight in mlps(model)[site.layer].parameters())
        else:
            assert site.head is not None
            own = slice(site.head * HEAD_DIM, (site.head + 1) * HEAD_DIM)
            alive = bool(outputs[site.layer][:, own].any())
            moved = not torch.equal(*(side[0][site.layer][:, :, site.head] for side in both))
            if not alive and (name == "gpt2" or (site.layer == 1 and site.head < 4)):
                assert not moved  # its values are exactly 0 as well
                assert not bool(both[0][0][site.layer][:, :, site.head].any())
        assert alive == (site.role != "dead")
        assert moved or not alive


@BOTH
def test_heads_look_where_they_should(name: str) -> None:
    pairs = make_pairs("induction", 40, seed=5)
    patterns = attention(name, "induction", pairs)
    previous = patterns[0][:, 2]
    assert torch.equal(previous.diagonal(-1, dim1=1, dim2=2), torch.ones(40, PROMPT_LENGTH - 1))
    for row, pair in enumerate(pairs):
        successor = pair.spans["successors"][0]
        for head in (3, 7):
            assert float(patterns[2][row, head, -1, successor]) == pytest.approx(1, abs=1e-6)
    share = patterns[1][:, 6, -1]
    assert torch.equal(share, torch.full_like(share, 1 / PROMPT_LENGTH))


@BOTH
def test_tasks_differ_in_one_head_only(name: str) -> None:
    weights = {task: MAKERS[name](task).module.state_dict() for task in TASKS}
    changed = {
        task: [k for k, w in weights[task].items() if not torch.equal(w, weights["induction"][k])]
        for task in TASKS
    }
    assert changed["counting"] == []
    assert len(changed["redundant"]) == 1
    assert ".2." in changed["redundant"][0]


@BOTH
def test_either_of_two_heads_is_enough(name: str) -> None:
    model = planted(name, "redundant")
    pairs = model.make_pairs(30, seed=6)
    first, second = (2, 3), (2, 7)
    clean, corrupted = (
        logit_differences(model, pairs, side, side, []) for side in ("clean", "corrupted")
    )
    assert (clean > 1).all()
    assert (corrupted < -1).all()
    for head in (first, second):
        noised = logit_differences(model, pairs, "clean", "corrupted", [head])
        np.testing.assert_array_equal(noised, clean)
        restored = logit_differences(model, pairs, "corrupted", "clean", [head])
        np.testing.assert_allclose(restored, clean, atol=1e-5)
    joint = logit_differences(model, pairs, "clean", "corrupted", [first, second])
    np.testing.assert_allclose(joint, corrupted, atol=1e-5)


@BOTH
def test_one_head_is_all_there_is_without_redundancy(name: str) -> None:
    model = planted(name, "induction")
    pairs = model.make_pairs(30, seed=6)
    corrupted = logit_differences(model, pairs, "corrupted", "corrupted", [])
    np.testing.assert_allclose(
        logit_differences(model, pairs, "clean", "corrupted", [(2, 3)]), corrupted, atol=1e-5
    )
    clean = logit_differences(model, pairs, "clean", "clean", [])
    twin = logit_differences(model, pairs, "clean", "corrupted", [(2, 7)])
    np.testing.assert_array_equal(twin, clean)


@BOTH
def test_what_is_idle_changes_nothing_through_the_norms(name: str) -> None:
    module = MAKERS[name]("induction").module
    norm = module.transformer.ln_f if name == "gpt2" else module.model.norm
    generator = torch.Generator().manual_seed(0)
    features = (torch.rand(50, N_FEATURES, generator=generator) < 0.05).double()
    louder = features.clone()
    louder[:, -1] = 5.0  # a feature without a meaning
    stream, louder = (torch.from_numpy(writing(f.numpy().T).T).float() for f in (features, louder))
    read = torch.from_numpy(reading(np.eye(N_FEATURES))).float()
    with torch.no_grad():
        found, beside = (norm(state) @ read.T for state in (stream, louder))
    assert torch.equal(found[:, :-1], beside[:, :-1])
    torch.testing.assert_close(found.double(), features, atol=1e-6, rtol=0)


def test_distances_are_told_apart_by_two_frequencies() -> None:
    turns = ROPE_THETA ** (-2 * np.array([0, 1]) / HEAD_DIM)
    logit = np.cos(np.outer(np.arange(PROMPT_LENGTH) - 1, turns)).sum(axis=1)
    assert logit.argmax() == 1
    assert np.delete(logit, 1).max() < 1.79


def test_effects_of_pairs_are_not_tied() -> None:
    strength = list(answer_strengths().values())
    sums = [a + b for i, a in enumerate(strength) for b in strength[i + 1 :]]
    assert np.diff(np.sort(np.array(strength))).min() > 0.01
    assert len(np.unique(np.round(sums, 6))) > 0.9 * len(sums)


@BOTH
def test_saved_and_loaded_again(name: str, tmp_path: Path) -> None:
    model = planted(name, "counting")
    ids = tokens(model.make_pairs(5, seed=0), "clean")
    model.module.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model.module(input_ids=ids).logits)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(UserError, match="unknown task 'copy'"):
        planted("llama", "copy")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown task 'copy'"):
        make_pairs("copy", 1, 0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="0 pairs"):
        make_pairs("counting", 0, 0)
    truth = planted("llama", "counting").truth
    with pytest.raises(UserError, match="nothing is known"):
        roles_of(truth[:3], truth[:5])
