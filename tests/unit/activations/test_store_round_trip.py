"""What was written comes back: every type, every prompt, whatever the order it came in."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sample_store as sample
import torch
from safetensors import safe_open

import interpflow
from interpflow.activations import ActivationStore, ActivationWriter, SiteRecord, plan_store
from interpflow.tables.parquet import read_rows
from interpflow.tables.provenance import Provenance, file_digest

N = len(sample.LENGTHS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    path = tmp_path_factory.mktemp("store") / "activations"
    return interpflow.activations.open(sample.write(path, [range(5), range(5, N)]))


def test_prompts_come_back_at_every_site(store: ActivationStore) -> None:
    assert store.examples == tuple(sample.ids())
    assert store.sites == tuple(site.site for site in sample.SITES)
    assert (store.n_prompts, store.n_tokens) == (N, sum(sample.LENGTHS))
    assert len(store.manifest["shards"]) > 2
    for prompt, example_id in enumerate(sample.ids()):
        for site in sample.SITES:
            found = store.read(site.site, example_id)
            expected = sample.values(site, prompt)
            np.testing.assert_array_equal(found, expected if site.per == "token" else expected[0])


def test_types_are_those_declared(store: ActivationStore) -> None:
    types = {site: store.read(site, "example-03").dtype for site in store.sites}
    assert types == {"embed": np.float32, "resid_post.L0": np.float16,
                     "resid_post.L1": np.float32, "top_ids": np.int32,
                     "top_logits": np.float32}  # fmt: skip
    kinds = {site: store.read(site, "example-03", as_torch=True).dtype for site in store.sites}
    assert kinds["resid_post.L1"] == torch.bfloat16
    assert kinds["resid_post.L0"] == torch.float16
    for site in store.sites:
        as_torch = store.read(site, "example-03", as_torch=True)
        np.testing.assert_array_equal(as_torch.float().numpy(), store.read(site, "example-03"))


def test_matrix_rows_are_the_rows_of_the_index(store: ActivationStore) -> None:
    index = store.index
    for site in sample.SITES[:3]:
        matrix = store.matrix(site.site)
        assert matrix.dtype == np.float32
        expected = np.concatenate([sample.values(site, prompt) for prompt in range(N)])
        np.testing.assert_array_equal(matrix, expected)
    places = [(p, k) for p in range(N) for k in range(sample.LENGTHS[p])]
    assert index["example_row"].to_pylist() == [p for p, _ in places]
    assert index["example_id"].to_pylist() == [f"example-{p:02d}" for p, _ in places]
    assert index["token_position"].to_pylist() == [10 + k for _, k in places]
    assert index["token_id"].to_pylist() == [100 * p + k for p, k in places]
    assert index["word"].to_pylist() == [k for _, k in places]
    assert set(index["role"].to_pylist()) == {"word", "answer"}
    shards, rows = index["shard"].to_numpy(), index["row"].to_numpy()
    for number, counts in enumerate(store.manifest["shards"]):
        np.testing.assert_array_equal(rows[shards == number], np.arange(counts["n_tokens"]))


def test_matrix_of_chosen_rows(store: ActivationStore) -> None:
    chosen = np.array([20, 3, 3, 41, 0])
    for site in store.sites[:3]:
        np.testing.assert_array_equal(store.matrix(site, chosen), store.matrix(site)[chosen])
    mask = np.array(store.index["role"].to_pylist()) == "answer"
    assert len(store.matrix("embed", mask)) == N
    assert store.matrix("embed", []).shape == (0, 3)
    ids = store.matrix("top_ids")
    assert ids.dtype == np.int32
    assert ids.shape == (N, 2)
    with pytest.raises(interpflow.UserError, match="embed has 43 rows, asked for 0 to 43"):
        store.matrix("embed", [0, 43])
    with pytest.raises(interpflow.UserError, match="embed has 43 rows, the mask 42"):
        store.matrix("embed", mask[1:])


def test_shards_are_plain_safetensors_without_padding(store: ActivationStore) -> None:
    held = 0
    for number, counts in enumerate(store.manifest["shards"]):
        path = store.directory / f"shard-{number:05d}.safetensors"
        with safe_open(path, framework="pt") as file:
            assert set(file.keys()) == set(store.sites)
            tensor = file.get_tensor("resid_post.L1")
        assert tensor.dtype == torch.bfloat16
        assert tensor.shape == (counts["n_tokens"], 5)
        held += counts["n_tokens"]
        header = int.from_bytes(path.read_bytes()[:8], "little")
        token_bytes = 3 * 4 + 5 * 2 + 5 * 2
        payload = counts["n_tokens"] * token_bytes + counts["n_prompts"] * (2 * 4 + 2 * 4)
        assert path.stat().st_size == 8 + header + payload
    assert held == sum(sample.LENGTHS)


def test_sites_say_what_each_tensor_is(store: ActivationStore) -> None:
    rows = read_rows(store.directory / "sites.parquet", "activation_sites")
    assert [row["site"] for row in rows] == list(store.sites)
    by_site = {row["site"]: row for row in rows}
    assert by_site["resid_post.L1"] == {
        "site": "resid_post.L1", "component": "resid_post", "layer": 1, "head": -1,
        "dtype": "bfloat16", "width": 5, "per": "token", "allow_nonfinite": False,
        "model_revision": "abc", "tokenizer_digest": "def",
    }  # fmt: skip
    assert by_site["embed"]["layer"] == by_site["top_ids"]["layer"] == -1
    head = SiteRecord("head_out.L2.H0", width=1)
    assert (head.component, head.layer, head.head) == ("head_out", 2, 0)


@pytest.mark.parametrize("case", range(4))
def test_the_order_of_arrival_has_no_say(store: ActivationStore, tmp_path: Path, case: int) -> None:
    drawn = np.random.default_rng(case)
    order = drawn.permutation(N)
    cuts = np.sort(drawn.choice(np.arange(1, N), size=case, replace=False))
    written = sample.write(tmp_path / "activations", np.split(order, cuts))
    assert sample.contents(written) == sample.contents(store.directory)


def test_torch_tensors_give_the_same_bytes(store: ActivationStore, tmp_path: Path) -> None:
    narrow = {"resid_post.L0": torch.float16, "resid_post.L1": torch.bfloat16}
    for types in ({}, narrow):
        path = tmp_path / f"{len(types)}"
        with ActivationWriter(path, sample.plan()) as writer:
            given = {
                site: torch.from_numpy(array).to(types.get(site))
                for site, array in sample.tensors(range(N)).items()
            }
            # A transposed layout is brought in order, not written as it lies.
            given["embed"] = given["embed"].T.contiguous().T
            writer.append(sample.ids(), given, sample.columns(range(N)))
        assert sample.contents(path) == sample.contents(store.directory)


def test_reading_copies_nothing(store: ActivationStore) -> None:
    first = store.read("resid_post.L0", "example-02")
    again = store.read("resid_post.L0", "example-02")
    assert np.shares_memory(first, again)
    assert not first.flags.owndata
    assert not first.flags.writeable
    base = first
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert type(base.base).__name__ in ("mmap", "memoryview"), "the memory is the file's"
    tensor = store.read("resid_post.L1", "example-02", as_torch=True)
    assert tensor.data_ptr() == store.read("resid_post.L1", "example-02", as_torch=True).data_ptr()


def test_what_is_written_into_a_tensor_reaches_neither_file_nor_arrays(tmp_path: Path) -> None:
    store = interpflow.activations.open(sample.write(tmp_path / "a"))
    before = sample.contents(store.directory)
    store.read("embed", "example-00", as_torch=True).zero_()
    assert store.read("embed", "example-00").any()
    assert sample.contents(store.directory) == before


def test_reading_allocates_a_view_and_no_more(tmp_path: Path) -> None:
    import tracemalloc

    wide = SiteRecord("resid_post.L0", width=4096)
    with ActivationWriter(tmp_path / "a", plan_store(["x"], [64], [wide])) as writer:
        writer.append(["x"], {wide.site: np.ones((64, 4096), np.float32)},
                      {"token_position": range(64)})  # fmt: skip
    store = interpflow.activations.open(tmp_path / "a")
    store.read(wide.site, "x")
    tracemalloc.start()
    try:
        view = store.read(wide.site, "x")
        assert tracemalloc.get_traced_memory()[1] < 4096 < sys.getsizeof(view) + view.nbytes
    finally:
        tracemalloc.stop()


def test_unknown_columns_of_the_index_are_null(tmp_path: Path) -> None:
    site = SiteRecord("embed", width=1)
    with ActivationWriter(tmp_path / "a", plan_store(["x"], [2], [site])) as writer:
        writer.append(["x"], {"embed": np.zeros((2, 1), np.float32)}, {"token_position": [5, 6]})
    index = interpflow.activations.open(tmp_path / "a").index
    assert index["token_id"].to_pylist() == index["char_start"].to_pylist() == [None, None]
    assert index["role"].to_pylist() == ["", ""]
    assert pa.types.is_dictionary(index["example_id"].type)


def test_a_store_of_no_prompts(tmp_path: Path) -> None:
    with ActivationWriter(tmp_path / "a", plan_store([], [], sample.SITES)) as writer:
        assert writer.remaining() == ()
    store = interpflow.activations.open(tmp_path / "a")
    assert (store.n_tokens, store.examples, store.index.num_rows) == (0, (), 0)
    assert store.matrix("embed").shape == (0, 3)


def test_a_store_is_an_artifact_with_provenance(tmp_path: Path) -> None:
    origin = Provenance(rule="a_rule", spec={"seed": 1})
    path = sample.write(tmp_path / "a", provenance=origin, settings={"positions": "all"})
    store = interpflow.activations.open(path)
    assert store.manifest["settings"] == {"positions": "all"}
    assert store.manifest["model_revision"] == "abc"
    before = file_digest(path)
    assert (
        file_digest(sample.write(path, provenance=origin, settings={"positions": "all"})) == before
    )
    assert file_digest(sample.write(path, provenance=origin)) != before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
