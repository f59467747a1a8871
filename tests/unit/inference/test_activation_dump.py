"""A dump holds what `Model.capture` and whole forwards give, for every kind of site and model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from interpflow.activations import open_store
from interpflow.activations.store import ActivationStore
from interpflow.engine import Model, Site, load
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.sweeps.path import joining_blocks
from interpflow.errors import UserError
from interpflow.inference import activation_dump
from interpflow.inference.activation_dump import dump_activations
from interpflow.inference.top_logits import TopLogits
from interpflow.paths import PROJECT_DIR
from tests.unit.engine.tiny_models import VOCABULARY, tiny_model, tiny_module

BY_BLOCKS = ("gpt2", "llama_grouped", "gemma2", "mistral_window")
# 0.5 is exactly representable: weights of attention, states and logits are compared to this share.
CLOSE = 2e-6
LENGTHS = (7, 4, 7, 9, 4, 7, 1)
ALL_COMPONENTS = (
    "embed", "resid_pre", "q", "k", "v", "head_out", "attn_out", "resid_mid", "mlp_act", "mlp_out",
    "resid_post",
)  # fmt: skip


def prompts(seed: int = 3) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]


IDS = [f"p{i}" for i in range(len(LENGTHS))]


def bloom_model(dtype: str = "float64") -> Model:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=3, n_head=4)
    config.initializer_range = 0.3
    return load(AutoModelForCausalLM.from_config(config), dtype=dtype)


def model_named(name: str, dtype: str = "float64") -> Model:
    return bloom_model(dtype) if name == "bloom" else tiny_model(name, dtype)


def dump(path: Path, model: Model, **changes: Any) -> ActivationStore:
    settings = {"example_ids": IDS, "token_budget": 16}
    dump_activations(model, changes.pop("prompts", prompts()), path, **(settings | changes))
    return open_store(path)


def kept_of(positions: Any, prompt: int) -> list[int]:
    if positions == "all":
        return list(range(LENGTHS[prompt]))
    return [LENGTHS[prompt] - 1] if positions == "answer" else positions[prompt]


def assert_equal(found: np.ndarray, expected: torch.Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=CLOSE * scale)


# The first of them are out of order and repeated; the last prompt has one token.
CHOSEN = [[3, 1, 1], [2], [6, 0], [4, 5], [0, 3], [5], [0]]


@pytest.mark.parametrize("positions", ["all", "answer", CHOSEN], ids=["all", "answer", "chosen"])
@pytest.mark.parametrize("name", [*BY_BLOCKS, "bloom"])
def test_states_are_those_of_capture(tmp_path: Path, name: str, positions: Any) -> None:
    model = model_named(name)
    assert (joining_blocks(model) is not None) == (name in BY_BLOCKS)
    components = [c for c in ALL_COMPONENTS if c in model.available_components]
    assert {"embed", "resid_pre", "resid_post"} <= set(components)
    assert name == "bloom" or components == list(ALL_COMPONENTS)
    store = dump(tmp_path / "a", model, sites=components, positions=positions)
    assert len(store.sites) == 1 + 3 * (len(components) - 1)
    for prompt, tokens in enumerate(prompts()):
        sites = [Site.parse(site) for site in store.sites]
        expected = model.capture([tokens], sites)
        for site in sites:
            kept = kept_of(positions, prompt)
            assert_equal(store.read(str(site), IDS[prompt]), expected[site][0, kept])


@pytest.mark.parametrize("positions", ["all", "answer", CHOSEN], ids=["all", "answer", "chosen"])
@pytest.mark.parametrize("name", [*BY_BLOCKS, "bloom"])
def test_top_logits_are_the_model_s(tmp_path: Path, name: str, positions: Any) -> None:
    model = model_named(name)
    store = dump(tmp_path / "a", model, positions=positions, top_k=5, sites=())
    assert store.sites == ("top_logits", "top_ids")
    for prompt, tokens in enumerate(prompts()):
        with torch.no_grad():
            logits = model.module(torch.tensor([tokens])).logits[0, kept_of(positions, prompt)]
        best = logits.topk(5, dim=-1)
        assert_equal(store.read("top_logits", IDS[prompt]), best.values)
        assert store.read("top_ids", IDS[prompt]).tolist() == best.indices.tolist()


@pytest.mark.parametrize("positions", ["all", CHOSEN], ids=["all", "chosen"])
@pytest.mark.parametrize("name", BY_BLOCKS)
def test_final_query_patterns_are_those_of_eager_attention(
    tmp_path: Path, name: str, positions: Any
) -> None:
    model = model_named(name)
    store = dump(
        tmp_path / "a", model, positions=positions, final_query_patterns=True, sites=("embed",)
    )
    eager = tiny_module(name).double().eval()
    eager.set_attn_implementation("eager")
    for prompt, tokens in enumerate(prompts()):
        with torch.no_grad():
            patterns = eager(torch.tensor([tokens]), output_attentions=True).attentions
        for layer, pattern in enumerate(patterns):
            expected = pattern[0, :, -1, kept_of(positions, prompt)].T
            assert_equal(store.read(f"pattern_last.L{layer}", IDS[prompt]), expected)


@pytest.mark.parametrize("positions", ["all", CHOSEN], ids=["all", "chosen"])
def test_both_ways_keep_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positions: Any
) -> None:
    model = model_named("llama_grouped")
    settings: dict[str, Any] = {
        "sites": ("embed", "q", "head_out", "resid_post"), "top_k": 3, "positions": positions,
        "final_query_patterns": True,
    }  # fmt: skip
    blocks = dump(tmp_path / "blocks", model, **settings)
    monkeypatch.setattr(activation_dump, "joining_blocks", lambda _model: None)
    whole = dump(tmp_path / "whole", model, **settings)
    assert blocks.sites == whole.sites
    for site in blocks.sites:
        np.testing.assert_allclose(blocks.matrix(site), whole.matrix(site), atol=1e-5)


def test_only_the_blocks_that_are_needed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ran = model_named("gpt2"), []
    assert joining_blocks(model) is not None  # proves the blocks by running them
    run = Blocks.run

    def counted(blocks: Blocks, layer: int, state: torch.Tensor, *others: Any, **named: Any) -> Any:
        ran.append((layer, state.shape[1]))
        return run(blocks, layer, state, *others, **named)

    monkeypatch.setattr(Blocks, "run", counted)
    one = {"prompts": [prompts()[3]], "example_ids": ["a"]}
    dump(tmp_path / "first", model, sites=("resid_post",), layers=[0], **one)
    assert ran == [(0, 9)]
    ran.clear()
    dump(tmp_path / "embed", model, sites=("embed",), **one)
    assert ran == []
    dump(tmp_path / "answer", model, positions="answer", **one)
    assert ran == [(0, 9), (1, 9), (2, 1)]


def test_types_are_those_computed_or_asked_for(tmp_path: Path) -> None:
    model = model_named("gpt2", "float32")
    whole, half = dump(tmp_path / "a", model), dump(tmp_path / "b", model, dtype="float16", top_k=2)
    brain = dump(tmp_path / "c", model_named("gpt2", "bfloat16"), top_k=2)
    for site in whole.sites:
        assert whole.records[site].dtype == "float32"
        assert half.records[site].dtype == "float16"
        assert brain.records[site].dtype == "bfloat16"
        np.testing.assert_array_equal(
            half.read(site, "p3"), whole.read(site, "p3").astype(np.float16)
        )
    assert half.records["top_logits"].dtype == brain.records["top_logits"].dtype == "float32"
    assert half.records["top_ids"].dtype == "int32"
    assert np.isfinite(brain.matrix("resid_post.L2")).all()


def test_the_index_says_what_each_row_is(tmp_path: Path) -> None:
    store = dump(
        tmp_path / "a", model_named("gpt2"), positions=CHOSEN, model_revision="r1",
        tokenizer_digest="t1", column_types={"number": pa.int16()},
        columns={"role": [["word"] * len(kept) for kept in CHOSEN],
                 "char_start": [[10 * place for place in kept] for kept in CHOSEN],
                 "char_end": [[10 * place + 9 for place in kept] for kept in CHOSEN],
                 "number": [list(range(len(kept))) for kept in CHOSEN]},
    )  # fmt: skip
    assert store.examples == ("p3", "p0", "p2", "p5", "p1", "p4", "p6"), "longest first"
    rows = store.index.to_pylist()
    tokens = prompts()
    assert len(rows) == sum(map(len, CHOSEN))
    for row in rows:
        prompt = int(row["example_id"][1:])
        place = CHOSEN[prompt][row["number"]]
        assert (row["token_position"], row["token_id"]) == (place, tokens[prompt][place])
        assert (row["char_start"], row["char_end"], row["role"]) == (
            10 * place, 10 * place + 9, "word",
        )  # fmt: skip
    assert store.index.schema.field("number").type == pa.int16()
    assert store.manifest["model_revision"] == "r1"


def test_batches_are_of_one_length_and_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    run_batch = activation_dump.run_batch

    def seen(model: Any, blocks: Any, ids: torch.Tensor, *others: Any) -> None:
        shapes.append(tuple(ids.shape))
        run_batch(model, blocks, ids, *others)

    monkeypatch.setattr(activation_dump, "run_batch", seen)
    dump(tmp_path / "a", model_named("gpt2"), token_budget=14)
    assert shapes == [(1, 9), (2, 7), (1, 7), (2, 4), (1, 1)]
    shapes.clear()
    dump(tmp_path / "b", model_named("gpt2"), token_budget=1)
    assert [rows for rows, _ in shapes] == [1] * len(LENGTHS)


PROGRAM = """
import os, signal, sys
from pathlib import Path
from tests.unit.inference import test_activation_dump as test
n_batches = 0
run_batch = test.activation_dump.run_batch
def counted(*arguments):
    global n_batches
    n_batches += 1
    if n_batches == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    run_batch(*arguments)
test.activation_dump.run_batch = counted
test.resumable(Path(sys.argv[1]))
"""


def resumable(path: Path) -> None:
    dump(path, model_named("llama_grouped", "float32"), top_k=3, final_query_patterns=True,
         shard_tokens=12)  # fmt: skip


def test_a_killed_dump_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumable(tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "a"), "4"], check=False,
        env={**os.environ, "PYTHONPATH": f"{PROJECT_DIR / 'workflow_scripts'}:{PROJECT_DIR}"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    batches = []
    run_batch = activation_dump.run_batch
    monkeypatch.setattr(
        activation_dump, "run_batch", lambda *given: (batches.append(given[2]), run_batch(*given))
    )
    resumable(tmp_path / "a")
    n_again = sum(len(ids) for ids in batches)
    assert 0 < n_again < len(LENGTHS), "finished shards are not run again"
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sum("safetensors" in name for name in names) >= 3
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_no_prompts_make_an_empty_store(tmp_path: Path) -> None:
    assert dump(tmp_path / "a", model_named("gpt2"), prompts=[], example_ids=[]).n_tokens == 0


@pytest.mark.parametrize("name", ["gpt2", "bloom"])
def test_nan_is_refused_by_name(tmp_path: Path, name: str) -> None:
    model = model_named(name)
    with torch.no_grad():
        model.architecture.blocks[1].mlp_projection.weight[:] = float("nan")  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"resid_post.L1 \(layer 1\) holds nan"):
        dump(tmp_path / "a", model)
    assert not (tmp_path / "a").exists()


def test_a_value_too_large_for_its_type_is_named(tmp_path: Path) -> None:
    model = model_named("gpt2", "float32")
    with torch.no_grad():
        model.architecture.embedding.weight[:] = 1e6  # type: ignore[index]
    with pytest.raises(UserError, match="too large for float16"):
        dump(tmp_path / "a", model, dtype="float16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": ("resid_psot",)}, "no component"),
        ({"sites": ("pattern",)}, "final_query_patterns"),
        ({"layers": [3]}, "no site resid_post.L3"),
        ({"sites": (Site("head_out", 0, 4),)}, "no site head_out.L0.H4"),
        ({"sites": ()}, "nothing is to be kept"),
        ({"top_k": VOCABULARY + 1}, "largest of"),
        ({"dtype": "float8"}, "float8"),
        ({"positions": "last"}, "'last'"),
        ({"positions": [[0]]}, "positions of 1"),
        ({"positions": [[0], [4], [0], [0], [0], [0], [0]]}, "example p1"),
        ({"positions": [[0], [], [0], [0], [0], [0], [0]]}, "keeps no token"),
        ({"positions": "answer", "final_query_patterns": True}, "the last token"),
        ({"query_patterns": {"a": [0] * 6}}, "query_patterns a"),
        ({"query_patterns": {"a": [0, 4, 0, 0, 0, 0, 0]}}, "query_patterns a, example p1"),
        ({"query_patterns": {"a": [-2, *[0] * 6]}}, "query_patterns a, example p0"),
        ({"query_patterns": {"a.b": [0] * 7}}, "name a query"),
        (
            {"query_patterns": {"last": [0] * 7}, "final_query_patterns": True},
            "'last' is asked for twice",
        ),
        ({"example_ids": ["a"]}, "1 example ids"),
        ({"example_ids": ["a"] * 7}, "twice"),
        ({"prompts": [[1], [], *[[1]] * 5]}, "example p1"),
        ({"prompts": [[1], [VOCABULARY], *[[1]] * 5]}, "token id 50"),
        ({"prompts": [[1], [2**40], *[[1]] * 5]}, "prompts"),
        ({"prompts": [[1] * 65, *[[1]] * 6]}, "64 positions"),
        ({"token_budget": 0}, "token budget"),
        ({"columns": {"role": [["x"]] * 7}}, "column role, example p0"),
        ({"columns": {"role": [["x"]]}}, "column role"),
    ],
)
def test_mistakes_are_one_message(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dump(tmp_path / "a", model_named("gpt2"), **changes)
    assert not list(tmp_path.iterdir())


def test_patterns_of_a_model_without_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pattern"):
        dump(tmp_path / "a", model_named("bloom"), final_query_patterns=True)


@pytest.mark.parametrize("columns", [50, 333, 16_384])
@pytest.mark.parametrize("k", [1, 7, 40, 1200])
def test_top_logits_in_tiles(monkeypatch: pytest.MonkeyPatch, k: int, columns: int) -> None:
    monkeypatch.setattr("interpflow.inference.top_logits.TILE_COLUMNS", columns)
    monkeypatch.setattr("interpflow.inference.top_logits.TILE_ROWS", 4)
    model = tiny_model("gemma2", vocab_size=1203)
    search = TopLogits(model.architecture, k)
    generator = torch.Generator().manual_seed(0)
    for n_rows in (11, 3, 5):  # what is left of the rows before in its memory does no harm
        residual = torch.randn(n_rows, 32, dtype=torch.float64, generator=generator)
        values, ids = search.of(residual)
        best = model.unembed(residual).topk(k, dim=1)
        torch.testing.assert_close(values, best.values)
        assert torch.equal(ids, best.indices)


def test_top_logits_beside_infinities_and_nan() -> None:
    model = tiny_model("gpt2", "float32", vocab_size=4099)
    head = model.architecture.unembedding
    assert isinstance(head, torch.nn.Linear)
    head.bias = torch.nn.Parameter(torch.full((4099,), float("-inf")))
    with torch.no_grad():
        head.bias[[5, 4097]] = 0.0
        residual = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
        values, ids = TopLogits(model.architecture, 3).of(residual)
        assert torch.isfinite(values[:, :2]).all()
        assert torch.isneginf(values[:, 2]).all()
        assert set(ids[:, :2].flatten().tolist()) == {5, 4097}
        assert int(ids.max()) < 4099
        head.bias[2000] = float("nan")
        values, ids = TopLogits(model.architecture, 3).of(residual)
    assert torch.isnan(values[:, 0]).all()
    assert (ids[:, 0] == 2000).all()
