"""The embedded reward model: its wrong answers, its training, its files, and what it can tell."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from interpflow.config.settings import ReferenceTraining
from interpflow.errors import UserError
from interpflow.models.acquire import ModelSource, load_transformer
from interpflow.models.reference.architecture import build_model
from interpflow.models.reference.problem_corpus import ProblemMaterial, with_unknown_words
from interpflow.models.reference.recipe import ArchitectureConfig, recipe_of
from interpflow.models.reference.release import RECORD_NAME, REFERENCE_DIR
from interpflow.models.reference.reward_architecture import build_reward_model
from interpflow.models.reference.reward_card import reward_card_text
from interpflow.models.reference.reward_corpus import (
    WRONG,
    draw,
    right_answer,
    wrong_answer,
)
from interpflow.models.reference.reward_evaluate import pair_scores, reward_metrics
from interpflow.models.reference.reward_objective import (
    NOT_ASKED,
    Row,
    draw_rows,
    encode_reward_rows,
    reward_losses,
)
from interpflow.models.reference.reward_recipe import REWARD_NAME, RewardRecipe
from interpflow.models.reference.reward_release import (
    load_reward_reference,
    write_reward_release,
)
from interpflow.models.reference.reward_tokenizer import build_pair_tokenizer
from interpflow.models.reference.reward_train import train_reward
from interpflow.models.reference.train import weights_digest
from interpflow.models.reward import load_reward_model
from interpflow.tables.provenance import file_digest
from interpflow.tasks.arithmetic import is_correct, read_answer
from interpflow.tasks.word_problems import held_out

DIRECTORY = REFERENCE_DIR / REWARD_NAME
released = pytest.mark.skipif(not DIRECTORY.is_dir(), reason="no reward model is released")
MIN_OVERALL, MIN_KIND = 0.9, 0.75
TOKENIZER = build_pair_tokenizer(512)
SMALL = RewardRecipe(steps=3, problems=2, new_width=32)
WIDTH = 64


def quiet(line: str) -> None:
    assert line


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_answers_are_wrong_or_worse(kind: str) -> None:
    rng = random.Random(0)
    right_numbers = 0
    for index in range(200):
        problem = draw(rng, 1 + index % 2, from_held_out=index % 3 == 0)
        assert held_out(problem) == (index % 3 == 0)
        wrong = wrong_answer(problem, kind, rng)
        assert wrong.kind == kind
        assert wrong.text != right_answer(problem)
        read = read_answer(wrong.text, "number").strict
        right_numbers += bool(is_correct(read, str(problem.answer), "number"))
    # What is rambling or unstated may be right for all that; the rest by accident only.
    assert right_numbers < 60 or kind in ("rambling", "unstated")


def test_made_up_names_replace_known_ones_and_no_number() -> None:
    rng = random.Random(1)
    for _ in range(50):
        problem = draw(rng, 2, from_held_out=False)
        changed = with_unknown_words(problem.question, rng)
        assert changed != problem.question
        assert [w for w in changed.split() if w.isdigit()] == [
            w for w in problem.question.split() if w.isdigit()
        ]


def base_model() -> LlamaForCausalLM:
    """An untrained decoder of word problems."""
    small = ArchitectureConfig(hidden=WIDTH, layers=2, heads=2, feed_forward=96)
    return build_model(small, TOKENIZER, 0)


def test_a_pair_is_the_prompt_with_its_answer() -> None:
    problem = draw(random.Random(0), 2, from_held_out=False)
    together = problem.prompt + problem.chain
    prompted = ProblemMaterial(recipe_of("word_problems")).tokenizer(together)["input_ids"]
    pair = TOKENIZER(problem.question, right_answer(problem))["input_ids"]
    assert pair == [*prompted, TOKENIZER.eos_token_id]
    n_texts = sum(
        len(TOKENIZER(text, add_special_tokens=False)["input_ids"])
        for text in (problem.question, right_answer(problem))
    )
    assert TOKENIZER.num_special_tokens_to_add(pair=True) == len(pair) - n_texts


def test_rows_are_encoded_as_the_tokenizer_encodes_pairs() -> None:
    rows, pairs = draw_rows(SMALL, random.Random(2))
    batch = encode_reward_rows(rows, pairs, TOKENIZER)
    for at, row in enumerate(rows):
        ids = TOKENIZER(row.question, row.answer)["input_ids"]
        assert batch.ids[at, : len(ids)].tolist() == ids
        assert batch.last[at] == len(ids) - 1
        n_answer = len(TOKENIZER(row.answer, add_special_tokens=False)["input_ids"])
        asked = (batch.wrong[at] != NOT_ASKED).nonzero()[:, 0]
        assert len(ids) - n_answer - 1 <= int(asked.min()) <= int(asked.max()) == len(ids) - 1
    for better, worse in pairs:
        assert rows[better].question == rows[worse].question
        assert (batch.wrong[better] != 1).all()
        assert (batch.wrong[worse] == 1).any()


@pytest.mark.parametrize(
    ("shown", "labels"),
    [
        ("3 + 4 = 7. The answer is 7.", [0] * 12),
        ("3 + 4 = 8. The answer is 8.", [0] * 4 + [1] + [None] * 6 + [1]),
        ("3 + 4 = 7.", [0] * 6 + [1]),
        ("", [1]),
        ("3 + 4 = 7. The answer is 7. The answer", [0] * 11 + [1, None, 1]),
    ],
)
def test_the_first_false_token_and_the_end_are_wrong(shown: str, labels: list[int | None]) -> None:
    batch = encode_reward_rows([Row("Why?", shown, "3 + 4 = 7. The answer is 7.")], [], TOKENIZER)
    asked = [None if label == NOT_ASKED else label for label in batch.wrong[0].tolist()]
    assert asked[-len(labels) :] == labels
    assert set(asked[: -len(labels)]) == {None}


def test_the_base_is_taken_over_and_new_layers_look_one_token_back() -> None:
    base = base_model()
    rows, pairs = draw_rows(SMALL, random.Random(3))
    batch = encode_reward_rows(rows, pairs, TOKENIZER)
    model = build_reward_model(
        base, TOKENIZER, batch.ids, new_layers=2, new_width=32, seed=0
    ).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model.model(batch.ids, output_hidden_states=True, output_attentions=True)
        own = base.model(batch.ids, output_hidden_states=True).hidden_states
    real = batch.ids != TOKENIZER.pad_token_id
    assert found.hidden_states[2][..., WIDTH:][real].norm(dim=-1).std() < 1e-3
    similar = torch.cosine_similarity(found.hidden_states[1][..., :WIDTH], own[1], dim=-1)[real]
    assert float(similar.mean()) > 0.9
    back, here = found.attentions[2].split([2, 1], 1)
    assert float(back.diagonal(-1, 2, 3).min()) > 0.95
    assert float(here.diagonal(0, 2, 3).min()) > 0.95


def small_run(seed: int, steps: int = 3) -> Any:
    return train_reward(replace(SMALL, steps=steps), seed, TOKENIZER, quiet, base_model())


def test_equal_seeds_give_equal_weights() -> None:
    digests = [weights_digest(small_run(seed).model) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_only_what_is_new_learns() -> None:
    before = {name: p.clone() for name, p in small_run(0, 0).model.named_parameters()}
    changed = {
        name for name, p in small_run(0, 3).model.named_parameters()
        if not torch.equal(p, before[name])
    }  # fmt: skip
    assert changed
    old = ("model.embed_tokens.", "model.layers.0.", "model.layers.1.")
    assert not any(name.startswith(old) for name in changed)
    assert {"model.norm.weight", "score.weight"} <= changed


def test_each_part_of_the_loss_teaches() -> None:
    model = small_run(0, 0).model
    model.requires_grad_(True)
    readout = torch.nn.Linear(model.config.hidden_size, 1)
    batch = encode_reward_rows(*draw_rows(SMALL, random.Random(3)), TOKENIZER)
    losses = reward_losses(model, readout, batch, 0.5)
    assert float(losses.total.detach()) == pytest.approx(losses.pairs + 0.5 * losses.tokens)
    losses.total.backward()
    for part in (model.score.weight, readout.weight):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_a_release_loads_with_the_same_weights(tmp_path: Path) -> None:
    run = small_run(0, 1)
    kept = {key: value.clone() for key, value in run.model.state_dict().items()}
    write_reward_release(SMALL, 0, run, TOKENIZER, tmp_path)
    model, tokenizer = load_reward_model(str(tmp_path))
    for key, value in model.state_dict().items():
        assert torch.equal(value, kept[key].to(torch.bfloat16).float()), key
    assert tokenizer("1", "2") == TOKENIZER("1", "2")


def record() -> dict[str, Any]:
    return json.loads((DIRECTORY / RECORD_NAME).read_text(encoding="utf-8"))


@released
def test_released_files_are_those_of_the_record() -> None:
    for file in ("model.safetensors", "tokenizer.json"):
        assert record()["digests"][file] == file_digest(DIRECTORY / file), file
    size = sum(path.stat().st_size for path in DIRECTORY.iterdir())
    assert size < 4_000_000
    card = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    assert card == reward_card_text(record())


@released
def test_the_tokenizer_still_fits_the_problems() -> None:
    _, tokenizer = load_reward_reference(DIRECTORY)
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()


@released
def test_right_answers_score_higher_on_new_held_out_problems() -> None:
    metrics = reward_metrics(*load_reward_reference(DIRECTORY), per_kind=40, seed=1)
    accuracy, recorded = metrics["accuracy"], record()["metrics"]["accuracy"]
    assert recorded["overall"] >= MIN_OVERALL
    assert accuracy["overall"] >= MIN_OVERALL - 0.03
    for key, value in recorded.items():
        if key.startswith("kind/"):
            assert value >= MIN_KIND, key
            assert abs(accuracy[key] - value) < 4 * math.sqrt(max(value * (1 - value), 0.01) / 40)
    # It reads the question: with another one the right answer loses its lead.
    for kind in ("operand", "operation"):
        assert accuracy[f"kind/{kind}"] > metrics["other_question"][f"kind/{kind}"] + 0.15


@released
def test_it_is_not_a_measure_of_length() -> None:
    accuracy = record()["metrics"]["accuracy"]
    lengths = [accuracy[key] for key in accuracy if key.startswith("length/")]
    assert len(lengths) == 3
    assert min(lengths) >= MIN_KIND


@released
def test_a_score_depends_on_its_pair_alone() -> None:
    model, tokenizer = load_reward_model("reference")
    rng = random.Random(5)
    problems = [draw(rng, 1 + i % 2, from_held_out=True) for i in range(10)]
    questions, answers = [p.question for p in problems], [right_answer(p) for p in problems]
    together = pair_scores(model, tokenizer, questions, answers)
    alone = [
        pair_scores(model, tokenizer, [q], [a])[0] for q, a in zip(questions, answers, strict=True)
    ]
    np.testing.assert_allclose(together, alone, atol=1e-4)


@released
def test_it_is_refused_where_a_decoder_is_studied() -> None:
    with pytest.raises(UserError, match="decoder"):
        load_transformer(ModelSource("m", "reference", REWARD_NAME))


def test_it_is_retrained_with_the_others() -> None:
    assert REWARD_NAME in ReferenceTraining().names
