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

from interpflow.config.settings import ReferenceTraining
from interpflow.errors import UserError
from interpflow.models.acquire import ModelSource, load_transformer
from interpflow.models.reference.problem_corpus import with_unknown_words
from interpflow.models.reference.recipe import ArchitectureConfig
from interpflow.models.reference.release import RECORD_NAME, REFERENCE_DIR
from interpflow.models.reference.reward_architecture import (
    MASK,
    build_pair_tokenizer,
    build_reward_model,
)
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
    TokenReadouts,
    draw_rows,
    encode_reward_rows,
    reward_losses,
)
from interpflow.models.reference.reward_recipe import REWARD_NAME, RewardRecipe, StepRows
from interpflow.models.reference.reward_release import (
    load_reward_reference,
    write_reward_release,
)
from interpflow.models.reference.reward_train import train_reward
from interpflow.models.reference.train import weights_digest
from interpflow.models.reward import load_reward_model
from interpflow.tables.provenance import file_digest
from interpflow.tasks.arithmetic import is_correct, read_answer
from interpflow.tasks.word_problems import held_out

DIRECTORY = REFERENCE_DIR / REWARD_NAME
released = pytest.mark.skipif(not DIRECTORY.is_dir(), reason="no reward model is released")
MIN_OVERALL, MIN_KIND = 0.9, 0.75
TOKENIZER = build_pair_tokenizer(256)
SMALL = RewardRecipe(
    first_steps=1, steps=3, first_rows=StepRows(0, 2, 2), rows=StepRows(2, 2, 2),
    architecture=ArchitectureConfig(hidden=32, layers=2, heads=2, feed_forward=48),
)  # fmt: skip


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


def test_rows_are_encoded_as_the_tokenizer_encodes_pairs() -> None:
    rows, pairs = draw_rows(SMALL, SMALL.rows, random.Random(2))
    batch = encode_reward_rows(rows, pairs, TOKENIZER)
    mask_id = TOKENIZER.convert_tokens_to_ids(MASK)
    for at, row in enumerate(rows):
        ids = batch.ids[at][batch.mask[at] == 1].tolist()
        expected = TOKENIZER(row.question, row.answer)["input_ids"]
        asked = batch.target[at] != NOT_ASKED
        assert len(ids) == len(expected)
        assert int(asked.sum()) == len(row.hidden) == ids.count(mask_id)
        restored = batch.ids[at].where(~asked, batch.target[at])[: len(ids)].tolist()
        assert restored == expected
    for better, worse in pairs:
        assert rows[better].question == rows[worse].question
        assert (batch.wrong[better] != 1).all()
        assert (batch.wrong[worse] == 1).any()


def test_only_the_first_false_tokens_of_a_slip_are_called_wrong() -> None:
    row = Row("", "3 + 4 = 8. The answer is 8.", right="3 + 4 = 7. The answer is 7.")
    batch = encode_reward_rows([row], [], TOKENIZER)
    wrong = [
        TOKENIZER.convert_ids_to_tokens(int(token))
        for token, label in zip(batch.ids[0], batch.wrong[0], strict=True)
        if label == 1
    ]
    assert wrong == ["Ġ8", "Ġ8"]


def test_equal_seeds_give_equal_weights() -> None:
    digests = [weights_digest(train_reward(SMALL, s, TOKENIZER, quiet).model) for s in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_each_part_of_the_loss_teaches() -> None:
    model = build_reward_model(SMALL.architecture, TOKENIZER, 0)
    readouts = TokenReadouts(SMALL.architecture.hidden, len(TOKENIZER))
    batch = encode_reward_rows(*draw_rows(SMALL, SMALL.rows, random.Random(3)), TOKENIZER)
    losses = reward_losses(model, readouts, batch, SMALL)
    assert losses.pairs is not None
    assert float(losses.total.detach()) == pytest.approx(
        losses.pairs + losses.tokens + losses.masked
    )
    assert losses.pairs == pytest.approx(math.log(2), abs=0.1)
    losses.total.backward()
    for part in (model.classifier.weight, readouts.wrong.weight, readouts.bias):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_a_release_loads_with_the_same_weights(tmp_path: Path) -> None:
    run = train_reward(replace(SMALL, steps=2), 0, TOKENIZER, quiet)
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
    metrics = reward_metrics(*load_reward_reference(DIRECTORY), per_kind=60, seed=1)
    accuracy, recorded = metrics["accuracy"], record()["metrics"]["accuracy"]
    assert recorded["overall"] >= MIN_OVERALL
    assert accuracy["overall"] >= MIN_OVERALL - 0.03
    for key, value in recorded.items():
        if key.startswith("kind/"):
            assert value >= MIN_KIND, key
            assert abs(accuracy[key] - value) < 4 * math.sqrt(max(value * (1 - value), 0.01) / 60)
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
