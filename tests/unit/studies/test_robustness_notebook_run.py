"""The robustness study from a notebook, as the documentation shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

import interpflow


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """A small study of a model with random weights, scored by another one."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    scorer = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            pad_token_id=tokenizer.pad_token_id,
            id2label={0: "score"},
        )
    )
    scorer.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    return {
        "models": {"tiny": {"local": str(tiny_model)}},
        "counting": None,
        "robustness": {
            "data": {"n_items": 12},
            "perturbations": {
                "operators": ["keyboard", "case"], "rewrites": {"styles": ["terse"]},
            },
            "semantics": {"embedding": None, "validator": True},
            "inference": {
                "max_new_tokens": 4, "samples": 2,
                "activations": {"max_items": 8, "positions": "roles"},
            },
            "scoring": {
                "embedding": None, "judge": True, "reward_models": [str(tmp_path / "reward")],
            },
            "analysis": {"n_permutations": 99, "n_resamples": 99},
        },
    }  # fmt: skip


def test_a_random_model_is_at_the_floor_and_refused(config: dict[str, Any], tmp_path: Path) -> None:
    summary = interpflow.run_robustness(config, tmp_path / "results")
    found = summary["models"]["tiny"]
    assert found["benchmark"]["n_prompts"] == 12
    assert found["gates"]["status"] == "refused"
    assert "nothing was patched" in summary["verdicts"]["tiny"][1]
    here = tmp_path / "results/robustness"
    answers = interpflow.read_table(here / "tiny/answers.parquet", "robustness_answers")
    assert answers.num_rows == summary["data"]["n_texts"]
    assert {"rewrite:terse", "clean", "null", "control"} <= set(answers["operator"].to_pylist())
    for name in ("rewrites", "meanings", "tiny/judgements", "tiny/samples", "tiny/rewards"):
        table = interpflow.read_table(here / f"{name}.parquet", _table(name))
        assert table.num_rows > 0, name


def _table(name: str) -> str:
    return f"robustness_{name.split('/')[-1]}"


def test_wrong_settings_are_one_message_before_any_work(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["robustness"]["perturbations"]["operators"] = ["keybord"]
    with pytest.raises(interpflow.UserError, match="did you mean 'keyboard'"):
        interpflow.run_robustness(config, tmp_path / "results")
    with pytest.raises(interpflow.UserError, match="switched off"):
        interpflow.run_robustness({"models": config["models"]}, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_prompts_that_no_context_holds_are_counted_and_nothing_breaks(
    config: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "long.json"
    path.write_text(json.dumps([{"normal": f"{i} is {'one of ' * 300}"} for i in range(9)]))
    config["robustness"]["data"] = {"source": "file", "path": str(path)}
    config["robustness"]["scoring"]["judge"] = False
    summary = interpflow.run_robustness(config, tmp_path / "results")
    found = summary["models"]["tiny"]["benchmark"]
    n_texts = summary["data"]["n_texts"]
    assert found["n_left_out"] == {"prompt longer than the model's context": n_texts}
    assert found["mediation_refused"]


def test_a_store_without_residual_states_has_no_probes(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["robustness"]["data"]["n_items"] = 30
    config["robustness"]["inference"]["activations"] = {
        "components": ["attn_out"], "layers": [1], "positions": "answer", "patterns": False,
        "max_items": 30,
    }  # fmt: skip
    interpflow.run_robustness(config, tmp_path / "results")
    here = tmp_path / "results/robustness/tiny"
    assert interpflow.read_table(here / "probes.parquet", "probes").num_rows == 0
    assert interpflow.read_table(here / "shifts.parquet", "robustness_shifts").num_rows > 0
