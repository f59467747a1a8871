"""Every prompt of the robustness study once: answers, what they are worth, and the states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from interpflow.activations import open_store
from interpflow.activations.store import ActivationStore
from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.models.named import load_named
from interpflow.models.tokens import encode
from interpflow.studies.robustness.answers.inference import kept_examples, run_inference
from interpflow.studies.robustness.data.generation import generate_examples
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.arithmetic import is_correct

torch.set_num_threads(1)
REFERENCE = ModelSettings(reference="word_problems")
SETTINGS = RobustnessSettings.model_validate(
    {
        "data": {"n_items": 8},
        "perturbations": {"operators": ["keyboard", "word_swap"]},
        "inference": {"samples": 2, "top_k": 3, "activations": {"max_items": 8}},
    }
)
# What is measured of a prompt, whoever it belongs to.
MEASURED = (
    "n_prompt_tokens", "generated", "token_ids", "finish_reason", "gold_log_prob",
    "gold_token_ids", "gold_token_log_probs", "top_ids", "top_logits", "strict", "lenient",
    "strict_rule", "lenient_rule", "strict_correct", "lenient_correct", "token_distance",
)  # fmt: skip


def changed(**changes: Any) -> RobustnessSettings:
    inference = SETTINGS.inference.model_dump() | changes
    return RobustnessSettings.model_validate(SETTINGS.model_dump() | {"inference": inference})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples, and a validation that accepts every other one."""
    folder = tmp_path_factory.mktemp("data")
    generate_examples(
        SETTINGS, 3, examples_path=folder / "examples.parquet", table_path=folder / "made.parquet"
    )
    rows = read_rows(folder / "examples.parquet", "robustness_examples")
    write_validation(folder, rows)
    return folder


def write_validation(folder: Path, rows: list[dict[str, Any]]) -> None:
    copied = ("example_id", "base_id", "family", "operator", "placement", "n_edits", "rate",
              "strength", "variant")  # fmt: skip
    verdicts = [
        {column: row[column] for column in copied}
        | {"accepted": number % 2 == 0, "reason": "", "similarity": None, "verdict": None,
           "judges": [], "votes": []}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    write_table(folder / "validation.parquet", "robustness_validation", verdicts)


def run(
    folder: Path, out: Path, settings: RobustnessSettings = SETTINGS,
    model: ModelSettings = REFERENCE, **others: Any,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], ActivationStore]:  # fmt: skip
    run_inference(
        "m", model, settings, 5, examples_path=folder / "examples.parquet",
        validation_path=folder / "validation.parquet", answers_path=out / "answers.parquet",
        samples_path=out / "samples.parquet", activations_path=out / "activations", **others,
    )  # fmt: skip
    return (
        read_rows(out / "answers.parquet", "robustness_answers"),
        read_rows(out / "samples.parquet", "robustness_samples"),
        open_store(out / "activations"),
    )


@pytest.fixture(scope="module")
def examples(data: Path) -> dict[str, dict[str, Any]]:
    rows = read_rows(data / "examples.parquet", "robustness_examples")
    return {row["example_id"]: row for row in rows}


@pytest.fixture(scope="module")
def results(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(data, tmp_path_factory.mktemp("results"))


def of_operator(rows: list[dict[str, Any]], operator: str) -> dict[str, dict[str, Any]]:
    return {row["base_id"]: row for row in rows if row["operator"] == operator}


def test_the_null_operator_is_the_clean_prompt_bit_for_bit(results: Any) -> None:
    answers, samples, store = results
    clean, null = of_operator(answers, "clean"), of_operator(answers, "null")
    assert len(clean) == len(null) == 8
    for base, row in null.items():
        for column in MEASURED:
            assert row[column] == clean[base][column], column
        assert row["token_distance"] == 0
        for site in store.sites:
            np.testing.assert_array_equal(
                store.read(site, row["example_id"]), store.read(site, clean[base]["example_id"])
            )
    drawn = {(row["example_id"], row["sample"]): row["generated"] for row in samples}
    for base, row in null.items():
        for sample in range(2):
            clean_draw = drawn[clean[base]["example_id"], sample]
            assert drawn[row["example_id"], sample] == clean_draw
    # The same prompts edited are not the same.
    typos = of_operator(answers, "keyboard")
    assert all(typos[base]["token_distance"] > 0 for base in typos)
    assert all(typos[base]["gold_log_prob"] != clean[base]["gold_log_prob"] for base in typos)


def test_answers_are_those_of_the_model_alone(results: Any, examples: Any) -> None:
    answers, _, _ = results
    model, tokenizer = load_named("m", REFERENCE)
    for row in answers[::9]:
        example = examples[row["example_id"]]
        ids = list(encode(tokenizer, example["prompt"]).ids)
        assert row["n_prompt_tokens"] == len(ids)
        whole = [*ids, *row["gold_token_ids"]]
        expected = encode(tokenizer, example["prompt"] + example["continuation"]).ids
        assert tuple(whole) == expected
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].double()
        log_probs = logits.log_softmax(-1)
        found = [log_probs[at - 1, whole[at]].item() for at in range(len(ids), len(whole))]
        np.testing.assert_allclose(row["gold_token_log_probs"], found, atol=1e-4)
        assert row["gold_log_prob"] == pytest.approx(sum(found), abs=1e-3)
        best = logits[len(ids) - 1].topk(3)
        assert row["top_ids"] == best.indices.tolist()
        np.testing.assert_allclose(row["top_logits"], best.values, atol=1e-3)
        new: list[int] = []
        while len(new) < SETTINGS.inference.max_new_tokens:
            with torch.no_grad():
                token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            new.append(token)
        assert row["token_ids"] == new, "the greedy answer, token by token"
        assert row["generated"] == tokenizer.decode(new)
        assert row["strict_correct"] == is_correct(row["strict"], row["gold"], "number")


def test_rows_carry_their_example_and_verdict(data: Path, results: Any, examples: Any) -> None:
    answers, samples, _ = results
    assert [row["example_id"] for row in answers] == list(examples)
    accepted = {
        row["example_id"]: row["accepted"]
        for row in read_rows(data / "validation.parquet", "robustness_validation")
    }
    for row in answers:
        example = examples[row["example_id"]]
        for column in ("base_id", "family_id", "operator", "dose", "split", "gold"):
            assert row[column] == example[column]
        assert row["accepted"] == accepted[row["example_id"]]
    assert len(samples) == 2 * len(answers)
    assert {row["sample"] for row in samples} == {0, 1}
    by_prompt: dict[str, set[int]] = {}
    for row in samples:
        by_prompt.setdefault(examples[row["example_id"]]["prompt"], set()).add(row["seed"])
    assert all(len(seeds) == 2 for seeds in by_prompt.values())


def test_the_index_says_which_token_is_which(results: Any, examples: Any) -> None:
    _, _, store = results
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in store.index.to_pylist():
        rows.setdefault(row["example_id"], []).append(row)
    n_edited = 0
    for example_id, tokens in rows.items():
        example = examples[example_id]
        prompt = example["prompt"]
        assert [token["token_position"] for token in tokens] == list(range(len(tokens)))
        assert [token["role"] == "answer_start" for token in tokens[-2:]] == [False, True]
        for kind, role in (("word", "edited"), ("control", "control")):
            spans = list(zip(example[f"{kind}_starts"], example[f"{kind}_ends"]))
            for number, (start, end) in enumerate(spans):
                mine = [t for t in tokens if t["role"] == role and t["word"] == number]
                covered = "".join(prompt[t["char_start"] : t["char_end"]] for t in mine)
                if kind == "word" or mine:
                    assert prompt[start:end].replace(" ", "") in covered.replace(" ", "")
                n_edited += kind == "word"
        for token in tokens:
            if token["char_start"] is not None and token["role"] == "question":
                assert example["question_start"] <= token["char_start"] < example["question_end"]
    assert n_edited > 8


def test_patterns_are_of_the_answer_and_the_numbers(results: Any, examples: Any) -> None:
    _, _, store = results
    assert {"pattern_answer.L0", "pattern_number0.L3", "embed", "mlp_act.L1"} <= set(store.sites)
    # Of float16, attention below 6e-8 would be none, whose log is nothing to compare.
    assert store.records["embed"].dtype == "float16"
    assert store.records["pattern_number0.L3"].dtype == "float32"
    index = store.index.to_pylist()
    for example_id in store.examples[:10]:
        tokens = [row for row in index if row["example_id"] == example_id]
        paid = store.read("pattern_answer.L2", example_id)
        np.testing.assert_allclose(paid.astype(float).sum(axis=0), 1, atol=2e-3)
        paid = store.read("pattern_number1.L2", example_id)
        np.testing.assert_allclose(paid.astype(float).sum(axis=0), 1, atol=2e-3)
        last = max(at for at in range(len(tokens)) if paid[at].max() > 0)
        end = examples[example_id]["number_ends"][1]
        assert tokens[last]["char_start"] < end <= tokens[last]["char_end"]


def test_more_items_keep_the_first_and_all_their_variants(examples: Any) -> None:
    rows = list(examples.values())
    few, more = (
        kept_examples(
            rows, [True] * len(rows),
            SETTINGS.inference.activations.model_copy(update={"max_items": n}),
        )
        for n in (2, 5)
    )  # fmt: skip
    bases = {row["base_id"] for row in few}
    assert len(bases) == 2
    assert bases < {row["base_id"] for row in more}
    assert few == [row for row in rows if row["base_id"] in bases]
    fits = [row["operator"] != "clean" or row["base_id"] not in bases for row in rows]
    without = kept_examples(rows, fits, SETTINGS.inference.activations)
    assert {row["base_id"] for row in without} == {row["base_id"] for row in rows} - bases


def test_other_batches_give_the_same_answers(data: Path, results: Any, tmp_path: Path) -> None:
    activations = {"max_items": 8, "positions": "roles", "components": ["resid_post"]}
    answers, samples, store = run(
        data, tmp_path, changed(activations=activations), tokens_per_batch=1500
    )
    exact = ("generated", "strict", "lenient_correct", "token_distance", "gold_token_ids")
    for row, other in zip(answers, results[0], strict=True):
        assert {column: row[column] for column in exact} == {c: other[c] for c in exact}
        assert row["gold_log_prob"] == pytest.approx(other["gold_log_prob"], abs=1e-3)
    assert [row["generated"] for row in samples] == [row["generated"] for row in results[1]]
    roles = set(store.index.column("role").to_pylist())
    assert {"edited", "number", "answer_start"} <= roles
    kept = store.index.to_pylist()
    clean = {row["example_id"] for row in answers if row["operator"] == "clean"}
    # Of clean prompts, the words that variants edit are kept as well.
    assert all(row["role"] in ("edited", "control", "number", "answer_start")
               or row["token_position"] == 0 or row["example_id"] in clean
               for row in kept)  # fmt: skip
    assert any(row["role"] == "question" for row in kept if row["example_id"] in clean)
    whole = results[2]
    places = {(r["example_id"], r["token_position"]): i for i, r in enumerate(kept)}
    rows = [i for i, r in enumerate(whole.index.to_pylist())
            if (r["example_id"], r["token_position"]) in places]  # fmt: skip
    order = [places[r["example_id"], r["token_position"]] for r in whole.index.to_pylist()
             if (r["example_id"], r["token_position"]) in places]  # fmt: skip
    for site in ("resid_post.L3", "pattern_answer.L1"):
        np.testing.assert_allclose(store.matrix(site)[order], whole.matrix(site)[rows], atol=1e-4)


def small_decoder(folder: Path, positions: int) -> Path:
    _, tokenizer = load_named("m", REFERENCE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_prompts_too_long_are_neither_right_nor_wrong(data: Path, tmp_path: Path) -> None:
    _, tokenizer = load_named("m", REFERENCE)
    rows = read_rows(data / "examples.parquet", "robustness_examples")
    lengths = [len(encode(tokenizer, row["prompt"]).ids) for row in rows]
    limit = sorted(lengths)[len(lengths) // 2] + 20
    model = ModelSettings(local=str(small_decoder(tmp_path / "model", limit)))
    settings = changed(max_new_tokens=20, samples=1)
    answers, samples, store = run(data, tmp_path, settings, model)
    too_long = [row for row in answers if row["finish_reason"] == "too_long"]
    assert 0 < len(too_long) < len(answers)
    for row, length in zip(answers, lengths, strict=True):
        assert (row["finish_reason"] == "too_long") == (length + 20 > limit)
        assert row["n_prompt_tokens"] == length
    for row in too_long:
        assert row["generated"] == ""
        assert row["token_ids"] == []
        assert row["strict_correct"] is None
        assert row["lenient_correct"] is None
    lost = {row["example_id"] for row in too_long}
    assert not lost & {row["example_id"] for row in samples}
    assert not lost & set(store.examples)


def test_gold_follows_the_turn_of_a_chat_template(data: Path, tmp_path: Path) -> None:
    """After a turn that ends in a line end, a chat model writes no blank before its answer."""
    folder = small_decoder(tmp_path / "model", 256)
    _, tokenizer = load_named("m", REFERENCE)
    continuations = {
        row["example_id"]: row["continuation"]
        for row in read_rows(data / "examples.parquet", "robustness_examples")
    }
    settings = changed(max_new_tokens=1, samples=0)
    for turn, blank in (("{{ 'assistant\\n' }}", False), ("[/INST]", True)):
        tokenizer.chat_template = (
            "{% for message in messages %}user {{ message['content'] }} {% endfor %}" + turn
        )
        tokenizer.save_pretrained(folder)
        answers, _, _ = run(data, tmp_path, settings, ModelSettings(local=str(folder)))
        for row in answers:
            wanted = continuations[row["example_id"]]
            assert wanted.startswith(" ")
            gold = tokenizer.decode(row["gold_token_ids"], clean_up_tokenization_spaces=False)
            assert gold == (wanted if blank else wanted.lstrip())


def test_an_encoder_is_refused(data: Path, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    load_named("m", REFERENCE)[1].save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="not of a causal decoder") as refused:
        run(data, tmp_path, model=ModelSettings(local=str(tmp_path / "bert")))
    assert "decoder-only" in str(refused.value)
    assert not (tmp_path / "answers.parquet").exists()


def test_an_example_without_a_verdict_is_named(data: Path, tmp_path: Path) -> None:
    rows = read_rows(data / "examples.parquet", "robustness_examples")
    write_table(tmp_path / "examples.parquet", "robustness_examples", rows)
    write_validation(tmp_path, rows[:-1])
    with pytest.raises(UserError, match="1 examples were not validated") as refused:
        run(tmp_path, tmp_path)
    assert rows[-1]["example_id"] in str(refused.value)
