"""Attention of several queries, and equal prompts, in a dump."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interpflow.activations import open_store
from interpflow.activations.plan import plan_store
from interpflow.activations.sites import SiteRecord
from interpflow.activations.store import ActivationStore
from interpflow.engine import Model
from interpflow.inference import activation_dump
from interpflow.inference.activation_dump import dump_activations
from interpflow.inference.packed_prompts import equal_length_batches
from tests.unit.engine.tiny_models import VOCABULARY, tiny_model, tiny_module

BY_BLOCKS = ("gpt2", "llama_grouped", "gemma2", "mistral_window")
LENGTHS = (7, 4, 7, 9, 4, 7, 1)
IDS = [f"p{i}" for i in range(len(LENGTHS))]
# A query may stand before every kept token, where the last block does not run.
CHOSEN = [[3, 1, 1], [2], [6, 0], [4, 5], [2, 3], [5], [0]]
QUERIES = {"answer": [6, 3, 6, 8, 3, 6, 0], "number0": [2, None, 0, 1, 1, 5, None]}


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]


def dump(path: Path, model: Model, **changes: Any) -> ActivationStore:
    settings = {"example_ids": IDS, "token_budget": 16, "sites": ("embed",)}
    dump_activations(model, changes.pop("prompts", prompts()), path, **(settings | changes))
    return open_store(path)


@pytest.mark.parametrize("positions", ["all", CHOSEN], ids=["all", "chosen"])
@pytest.mark.parametrize("name", BY_BLOCKS)
def test_each_query_pays_what_eager_attention_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, positions: Any
) -> None:
    settings: dict[str, Any] = {"positions": positions, "query_patterns": QUERIES}
    model = tiny_model(name)
    stores = [dump(tmp_path / "blocks", model, **settings)]
    monkeypatch.setattr(activation_dump, "joining_blocks", lambda _model: None)
    stores.append(dump(tmp_path / "whole", model, **settings))
    eager = tiny_module(name).double().eval()
    eager.set_attn_implementation("eager")
    for prompt, tokens in enumerate(prompts()):
        with torch.no_grad():
            patterns = eager(torch.tensor([tokens]), output_attentions=True).attentions
        kept = list(range(LENGTHS[prompt])) if positions == "all" else positions[prompt]
        for query, places in QUERIES.items():
            for layer, pattern in enumerate(patterns):
                expected = np.zeros((len(kept), 4))
                if places[prompt] is not None:
                    expected = pattern[0, :, places[prompt], kept].T.numpy()
                for store in stores:
                    found = store.read(f"pattern_{query}.L{layer}", IDS[prompt])
                    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
                    later = np.array(kept) > (-1 if places[prompt] is None else places[prompt])
                    assert (found[later] == 0).all()


def test_the_last_query_is_one_of_them(tmp_path: Path) -> None:
    model = tiny_model("gpt2", "float32")
    both = dump(
        tmp_path / "a", model, final_query_patterns=True,
        query_patterns={"answer": [n - 1 for n in LENGTHS]},
    )  # fmt: skip
    alone = dump(tmp_path / "b", model, final_query_patterns=True)
    for layer in range(3):
        last = both.matrix(f"pattern_last.L{layer}")
        np.testing.assert_array_equal(last, both.matrix(f"pattern_answer.L{layer}"))
        np.testing.assert_array_equal(last, alone.matrix(f"pattern_last.L{layer}"))


def test_patterns_may_have_a_wider_type_than_states(tmp_path: Path) -> None:
    model = tiny_model("gpt2", "float32")
    asked: dict[str, Any] = {"sites": ("resid_post",), "query_patterns": QUERIES}
    exact = dump(tmp_path / "a", model, **asked)
    mixed = dump(tmp_path / "b", model, dtype="float16", pattern_dtype="float32", **asked)
    narrow = dump(tmp_path / "c", model, dtype="float16", **asked)
    types = {site: record.dtype for site, record in mixed.records.items()}
    assert (types["resid_post.L1"], types["pattern_answer.L1"]) == ("float16", "float32")
    assert narrow.records["pattern_answer.L1"].dtype == "float16"
    for site in ("pattern_answer.L1", "pattern_number0.L2"):
        np.testing.assert_array_equal(mixed.matrix(site), exact.matrix(site))


@pytest.mark.parametrize("shard_tokens", [None, 12])
@pytest.mark.parametrize("positions", ["all", "answer"])
def test_equal_prompts_are_run_once_and_kept_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positions: Any, shard_tokens: int | None
) -> None:
    generator = torch.Generator().manual_seed(5)
    texts = torch.randint(1, VOCABULARY, (5, 8), generator=generator).tolist()
    given = [texts[i] for i in (0, 1, 2, 0, 3, 1, 4, 0, 0)]
    names = [f"e{i}" for i in range(len(given))]
    ran = []
    run_batch = activation_dump.run_batch

    def seen(model: Any, blocks: Any, ids: torch.Tensor, *others: Any) -> None:
        ran.extend(map(tuple, ids.tolist()))
        run_batch(model, blocks, ids, *others)

    monkeypatch.setattr(activation_dump, "run_batch", seen)
    model = tiny_model("llama_grouped", "float32")
    store = dump(
        tmp_path / "a", model, prompts=given, example_ids=names, positions=positions, top_k=2,
        sites=("resid_post", "mlp_act"), token_budget=16, shard_tokens=shard_tokens,
        columns={"role": [[name] * (8 if positions == "all" else 1) for name in names]},
    )  # fmt: skip
    assert sorted(ran) == sorted(map(tuple, texts)), "each once"
    for place, tokens in enumerate(given):
        first = given.index(tokens)
        for site in store.sites:
            np.testing.assert_array_equal(
                store.read(site, names[place]), store.read(site, names[first])
            )
        assert not np.array_equal(
            store.read("resid_post.L2", "e0"), store.read("resid_post.L2", "e1")
        )
    for row in store.index.to_pylist():
        assert row["role"] == row["example_id"]
        assert row["token_id"] == given[int(row["example_id"][1:])][row["token_position"]]


def test_equal_prompts_with_other_positions_or_queries_are_each_run(tmp_path: Path) -> None:
    given, names = [[1, 2, 3]] * 3, ["a", "b", "c"]
    store = dump(
        tmp_path / "a", tiny_model("gpt2"), prompts=given, example_ids=names,
        positions=[[0, 1], [0, 1], [1, 2]], query_patterns={"q": [1, 0, 1]},
    )  # fmt: skip
    assert store.read("pattern_q.L0", "b")[1].tolist() == [0] * 4
    assert store.read("pattern_q.L0", "a")[1].min() > 0
    assert store.read("pattern_q.L0", "c")[1].tolist() == [0] * 4
    np.testing.assert_allclose(
        store.read("pattern_q.L0", "c")[0], store.read("pattern_q.L0", "a")[1], atol=1e-6
    )


def test_a_shard_ends_where_a_group_ends() -> None:
    site = [SiteRecord("embed", width=1)]
    ids = [str(i) for i in range(7)]
    for together, expected in [
        ([0, 0, 0, 1, 2, 2, 3], [0, 3, 6, 7]),
        ([0] * 7, [0, 7]),
        (list(range(7)), [0, 3, 6, 7]),
    ]:
        plan = plan_store(ids, [2] * 7, site, shard_tokens=6, together=np.array(together))
        assert plan.shard_starts.tolist() == expected
    assert plan_store(ids, [2] * 7, site, shard_tokens=6).shard_starts.tolist() == [0, 3, 6, 7]
    wide = plan_store(ids, [9] * 7, site, shard_tokens=6, together=np.array([0, 1, 1, 2, 3, 4, 5]))
    assert wide.shard_starts.tolist() == [0, 1, 3, 4, 5, 6, 7]


def test_what_is_run_already_costs_no_tokens() -> None:
    lengths = np.full(6, 4)
    fresh = np.array([True, False, True, True, False, False])
    assert list(equal_length_batches([range(6)], lengths, 8, fresh)) == [range(3), range(3, 6)]
    assert list(equal_length_batches([range(6)], lengths, 8)) == [
        range(2), range(2, 4), range(4, 6),
    ]  # fmt: skip


def test_the_manifest_tells_stores_of_other_queries_apart(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    settings = [
        dump(tmp_path / str(i), model, query_patterns={"q": positions}).manifest["settings"]
        for i, positions in enumerate(([0] * 7, [1] * 6 + [0]))
    ]
    assert settings[0]["queries"] != settings[1]["queries"]
    expected = np.zeros((7, 1), dtype=np.int32).tobytes()
    assert settings[0]["queries"] == hashlib.sha256(expected).hexdigest()
