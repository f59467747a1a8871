"""What cannot be stored or read is refused with what, where and what would be right."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sample_store as sample

from interpflow.activations import ActivationWriter, SiteRecord, open_store, plan_store
from interpflow.errors import UserError
from interpflow.tables.documents import read_document, write_document

N = len(sample.LENGTHS)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("site", ["embed", "resid_post.L0", "resid_post.L1"])
def test_nan_is_refused_with_site_example_and_layer(tmp_path: Path, site: str, bad: float) -> None:
    given = sample.tensors([2, 3])
    given[site][sample.LENGTHS[2] + 1, 1] = bad  # the second token of the second prompt
    with (
        pytest.raises(UserError) as caught,
        ActivationWriter(tmp_path / "a", sample.plan()) as writer,
    ):
        writer.append(sample.ids([2, 3]), given, sample.columns([2, 3]))
    assert f"{site}{' (layer ' + site[-1] + ')' if site != 'embed' else ''} holds {bad}" in str(
        caught.value
    )
    assert caught.value.where == "example example-03, kept token 1"
    assert list(tmp_path.iterdir()) == []


def test_a_value_too_large_for_its_type_is_refused(tmp_path: Path) -> None:
    given = sample.tensors([0])
    given["resid_post.L0"][0, 0] = 70_000
    with (
        pytest.raises(UserError, match=r"70000 at resid_post.L0 \(layer 0\) is too large"),
        ActivationWriter(tmp_path / "a", sample.plan()) as writer,
    ):
        writer.append(sample.ids([0]), given, sample.columns([0]))


def test_nan_is_kept_where_the_site_allows_it(tmp_path: Path) -> None:
    with ActivationWriter(tmp_path / "a", sample.plan()) as writer:
        given = sample.tensors(range(N))
        given["top_logits"][4, 1] = -np.inf
        writer.append(sample.ids(), given, sample.columns(range(N)))
    assert open_store(tmp_path / "a").read("top_logits", "example-04")[1] == -np.inf


def test_what_does_not_fit_the_plan_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    ids, given, columns = sample.ids([0]), sample.tensors([0]), sample.columns([0])
    attempts: list[tuple[str, Any]] = [
        ("no example 'x'", (["x"], given, columns)),
        ("given twice", (ids * 2, sample.tensors([0, 0]), sample.columns([0, 0]))),
        ("sites do not match the plan: embed", (ids, {**given, "embed": None} | {}, columns)),
        (r"embed: shape \(3, 3\), expected \(4, 3\)", (ids, {**given, "embed": given["embed"][1:]},
                                                       columns)),
        ("columns missing: word", (ids, given, {k: v for k, v in columns.items() if k != "word"})),
        ("columns unknown: colour", (ids, given, {**columns, "colour": [1] * 4})),
        ("token_position: 3 values for 4", (ids, given, {**columns, "token_position": [1, 2, 3]})),
    ]  # fmt: skip
    del attempts[2][1][1]["embed"]
    for message, arguments in attempts:
        with (
            pytest.raises(ValueError, match=message),
            ActivationWriter(tmp_path / "a", sample.plan()) as writer,
        ):
            writer.append(*arguments)
    with pytest.raises(ValueError, match="given twice"):
        sample.write(tmp_path / "a", [[0], [1, 0]])
    with pytest.raises(ValueError, match="11 prompts were not all appended"):
        sample.write(tmp_path / "a", [[0]], shard_tokens=4)
    assert not (tmp_path / "a").exists()


def test_a_plan_that_cannot_be_is_one_message() -> None:
    site = SiteRecord("embed", width=1)
    attempts: list[tuple[str, Any, dict[str, Any]]] = [
        ("planned twice", (["a", "b", "a"], [1, 1, 1], [site]), {}),
        ("keeps no token", (["a", "b"], [1, 0], [site]), {}),
        ("2 token counts for 1", (["a"], [1, 1], [site]), {}),
        ("named twice: embed", (["a"], [1], [site, site]), {}),
        ("nothing is to be kept", (["a"], [1], []), {}),
        ("a shard of 0 tokens", (["a"], [1], [site]), {"shard_tokens": 0}),
        ("columns already: role", (["a"], [1], [site]), {"columns": {"role": pa.string()}}),
    ]
    for message, arguments, options in attempts:
        with pytest.raises(UserError, match=message):
            plan_store(*arguments, **options)
    for wrong in ({"width": 0}, {"width": 1, "dtype": "float8"}, {"width": 1, "per": "head"}):
        with pytest.raises(UserError):
            SiteRecord("embed", **wrong)
    with pytest.raises(UserError, match="cannot name a site"):
        SiteRecord("__metadata__", width=1)


@pytest.mark.parametrize("when", ["a row is written", "a shard is finished"])
def test_a_full_disk_is_one_message_and_finished_shards_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    name = "pwrite" if when == "a row is written" else "fsync"
    real, calls = getattr(os, name), []
    # The first shard's rows are five writes for each of two prompts; its end is two fsyncs more.
    allowed = 10 if name == "pwrite" else 12

    def full(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, name, full)
    with pytest.raises(UserError, match="no space left on the disk"):
        sample.write(tmp_path / "a", [[p] for p in range(N)])
    assert not (tmp_path / "a").exists()
    monkeypatch.undo()
    with ActivationWriter(tmp_path / "a", sample.plan()) as writer:
        assert 0 in writer.done_shards
        for prompts in writer.remaining():
            sample.append(writer, list(prompts))
    assert sample.contents(tmp_path / "a") == sample.contents(sample.write(tmp_path / "b"))


def test_a_store_that_cannot_fit_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(UserError, match="GB are free"):
        sample.write(tmp_path / "a")


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    with ActivationWriter(tmp_path / "a", sample.plan()) as writer:
        sample.append(writer, range(N))
        with pytest.raises(UserError, match="another process is writing"):
            sample.write(tmp_path / "a")
    assert open_store(tmp_path / "a").n_prompts == N


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return sample.write(tmp_path / "a")


SHARD = "shard-00001.safetensors"


@pytest.mark.parametrize("victim", [SHARD, "index.parquet", "sites.parquet", "manifest.json"])
@pytest.mark.parametrize("verify", ["digest", "size", None])
def test_a_part_cut_short_or_gone_is_named(written: Path, victim: str, verify: Any) -> None:
    part = written / victim
    part.write_bytes(part.read_bytes()[:-7])
    with pytest.raises(UserError) as caught:
        open_store(written, verify=verify)
    assert str(written) in caught.value.where
    assert victim in str(caught.value)
    part.unlink()
    with pytest.raises(UserError, match=victim):
        open_store(written, verify=verify)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_one_flipped_bit_is_found_by_digest(written: Path) -> None:
    flip(written / SHARD, -1)
    for verify in ("digest", None):
        with pytest.raises(UserError, match=f"{SHARD} was changed"):
            open_store(written, verify=verify)
    assert open_store(written, verify="size").n_prompts == N, "sizes and headers are as they were"


def test_a_changed_header_or_table_is_found_by_size_too(written: Path, tmp_path: Path) -> None:
    other = sample.write(tmp_path / "b", settings={"another": "plan"})
    shutil.copy(other / SHARD, written / SHARD)
    with pytest.raises(UserError, match=f"{SHARD} does not hold"):
        open_store(written, verify="size")
    flip(other / "index.parquet", 1000)
    with pytest.raises(UserError, match=r"index.parquet was changed"):
        open_store(other, verify="size")


def test_no_store_at_all(tmp_path: Path, written: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_store(tmp_path / "nothing")
    with pytest.raises(UserError, match="no complete activations here"):
        open_store(tmp_path)
    with pytest.raises(UserError, match="by 'size' or 'digest', not by 'hope'"):
        open_store(written, verify="hope")  # type: ignore[arg-type]
    content = read_document(written / "manifest.json", "activations")
    write_document(written / "manifest.json", "counting_gates", content)
    with pytest.raises(UserError, match="this is a 'counting_gates'"):
        open_store(written)


def test_an_unknown_site_or_example_is_one_message(written: Path) -> None:
    store = open_store(written)
    with pytest.raises(UserError, match="no activations of mlp") as caught:
        store.matrix("mlp")
    assert "resid_post.L1" in caught.value.remedy
    with pytest.raises(UserError, match="no activations of mlp"):
        store.read("mlp", "example-00")
    with pytest.raises(UserError, match="no activations of example 'x'"):
        store.read("embed", "x")
