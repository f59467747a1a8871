"""A model that does not fit is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from interpflow.errors import UserError
from interpflow.models import memory
from interpflow.models.acquire import load_transformer
from interpflow.models.sources import source_of


def test_weights_are_counted_from_the_headers(model_dir: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(model_dir)
    n = sum(p.numel() for p in module.parameters())  # the tied unembedding once
    assert memory.weight_bytes(model_dir, "float32") == 4 * n
    assert memory.weight_bytes(model_dir, "bfloat16") == 2 * n
    assert memory.weight_bytes(model_dir, "float64") == 8 * n


def test_shards_and_other_types_are_counted(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 5, dtype=torch.float16)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(7, dtype=torch.int64)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert memory.weight_bytes(tmp_path, "float32") == 15 * 4 + 7 * 8


def test_a_model_too_large_is_refused_with_both_numbers(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(memory, "available_memory", lambda: 10**8)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_a, **_k: loaded.append(1))
    with pytest.raises(UserError, match=r"about 0\.5 GB in float32, main memory has 0\.1 GB free"):
        load_transformer(model_dir)
    assert not loaded


def test_a_container_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    unlimited = memory.available_memory()
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    assert memory.available_memory() == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 0.5 * unlimited


def test_a_batch_counts(model_dir: Path) -> None:
    config = json.loads((model_dir / "config.json").read_text())
    small = memory.batch_bytes(config, "bfloat16")
    wide = memory.batch_bytes({**config, "hidden_size": 160}, "bfloat16")
    more = memory.batch_bytes({**config, "vocab_size": config["vocab_size"] + 1000}, "bfloat16")
    assert wide > small
    assert more - small == 256 * 1000 * 4
    nested = memory.batch_bytes({"text_config": config}, "bfloat16")
    assert nested == small


def test_what_a_name_stands_for(model_dir: Path) -> None:
    resources = model_dir.parent.parent
    assert source_of(str(model_dir)).kind == "local"
    assert source_of(model_dir).location == str(model_dir)
    assert source_of("tiny", resources_dir=resources).kind == "reference"
    hub = source_of("owner/name", revision="abc", dtype="bfloat16")
    assert (hub.kind, hub.revision, hub.dtype) == ("hub", "abc", "bfloat16")
    assert source_of(hub) is hub
    with pytest.raises(UserError, match="no such directory"):
        source_of("owner/name")
    with pytest.raises(UserError, match="no such directory"):
        source_of("gpt2")
    with pytest.raises(UserError, match="only a model of the hub has a revision"):
        source_of(str(model_dir), revision="abc")
