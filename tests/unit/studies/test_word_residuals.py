"""The stored residuals are those at each word's last token, whatever the batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interpflow.activations import open_store
from interpflow.config.model import ModelSettings
from interpflow.engine import Model, Site, load
from interpflow.models.acquire import load_transformer
from interpflow.models.manifest import weights_revision
from interpflow.models.named import model_source
from interpflow.studies.counting.inference import write_word_residuals
from interpflow.studies.counting.tokens import PromptTokens, tokenize_prompt

LISTS = (["apple", "wren", "pear"], ["robin"], ["plum", "apple", "finch", "fig", "wren"],
         ["fig", "robin"])  # fmt: skip


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Model:
    module, tokenizer = load_transformer(tiny_model)
    return load(module, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    made = []
    for number, words in enumerate(LISTS):
        prompt, starts = "List: ", []
        for word in words:
            starts.append(len(prompt))
            prompt += f"{word}, "
        made.append({"example_id": f"e{number}", "prompt": prompt + "Answer:", "words": words,
                     "word_starts": starts,
                     "word_ends": [start + len(w) for start, w in zip(starts, words)]})  # fmt: skip
    return made


@pytest.fixture(scope="module")
def prompts(engine: Model, rows: list[dict[str, Any]]) -> list[PromptTokens]:
    return [
        tokenize_prompt(
            engine.tokenizer, row["prompt"], list(zip(row["word_starts"], row["word_ends"])), "auto"
        )
        for row in rows
    ]


def write(path: Path, engine: Model, prompts: Any, rows: Any, tokens_per_batch: int = 40) -> int:
    return write_word_residuals(
        path, engine, prompts, rows, model_revision="r", tokenizer_digest="t",
        tokens_per_batch=tokens_per_batch,
    )  # fmt: skip


def test_each_row_is_the_residual_at_its_token(
    engine: Model, prompts: list[PromptTokens], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert write(tmp_path / "a", engine, prompts, rows) == sum(map(len, LISTS))
    store = open_store(tmp_path / "a")
    assert store.sites == ("embed", "resid_post.L0", "resid_post.L1")
    index = store.index.to_pylist()
    for site in store.sites:
        matrix = store.matrix(site)
        for row, values in zip(index, matrix):
            tokens = prompts[int(row["example_id"][1:])]
            alone = engine.capture([tokens.ids], [Site.parse(site)])[Site.parse(site)]
            expected = alone[0, row["token_position"]].numpy()
            np.testing.assert_allclose(values, expected, atol=1e-5)
    for row in index:
        example = rows[int(row["example_id"][1:])]
        assert (
            example["prompt"][row["char_start"] : row["char_end"]] == example["words"][row["word"]]
        )
        assert row["token_id"] == prompts[int(row["example_id"][1:])].ids[row["token_position"]]
        assert row["role"] == "word"


def test_batches_change_rounding_at_most(
    engine: Model, prompts: list[PromptTokens], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    write(tmp_path / "one", engine, prompts, rows, tokens_per_batch=1)
    write(tmp_path / "all", engine, prompts, rows, tokens_per_batch=1000)
    one, both = open_store(tmp_path / "one"), open_store(tmp_path / "all")
    assert one.index.equals(both.index)
    for site in one.sites:
        np.testing.assert_allclose(one.matrix(site), both.matrix(site), atol=1e-5)


def test_the_model_s_own_type_is_stored(
    tiny_model: Path, prompts: list[PromptTokens], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    module, tokenizer = load_transformer(tiny_model, dtype="bfloat16")
    narrow = load(module, dtype="bfloat16", tokenizer=tokenizer)
    write(tmp_path / "a", narrow, prompts, rows)
    store = open_store(tmp_path / "a")
    assert store.records["resid_post.L1"].dtype == "bfloat16"
    assert store.read("embed", "e1", as_torch=True).dtype == torch.bfloat16


def test_no_prompts_make_an_empty_store(engine: Model, tmp_path: Path) -> None:
    assert write(tmp_path / "a", engine, [], []) == 0
    assert open_store(tmp_path / "a").n_tokens == 0


def test_the_revision_of_a_directory_is_its_weights(tiny_model: Path) -> None:
    source = model_source("tiny", ModelSettings(local=str(tiny_model)))
    assert len(weights_revision(source)) == 64
    hub = model_source("hub", ModelSettings(hub="a/b", revision="0" * 40))
    assert weights_revision(hub) == "0" * 40
