"""Artifacts appear whole or not at all, and a reader says what is wrong with a file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.tables import documents, parquet
from interpflow.tables.atomic import TEMPORARY_MARK, atomic_path
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import METADATA_KEY, read_provenance, read_rows, write_table
from interpflow.tables.provenance import Provenance, file_digest, package_versions
from interpflow.tables.schemas import table_names, table_schema

ROWS = [{"model": "m", "readout": "scored", "truth": 3, "response": "4", "n": 2}]
ORIGIN = Provenance(rule="a_rule", spec={"seed": 1}, code="c", inputs={"a": "b"}, seed=1)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep/er/file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert TEMPORARY_MARK in temporary.name
        assert temporary.parent == target.parent, "a rename across disks is a copy"
    assert target.read_text() == "whole"
    assert names(target.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: write_table(tmp_path / "t.parquet", "confusion", ROWS),
        lambda: write_document(tmp_path / "d.json", "kind", {}),
    ):
        with pytest.raises(UserError, match="no space left") as caught:
            write()
        assert str(tmp_path) in caught.value.where
    assert names(tmp_path) == []


def test_another_disk_error_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="input/output"):
        write_document(tmp_path / "d.json", "kind", {})
    assert names(tmp_path) == []


def test_a_table_comes_back_with_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, "confusion", ROWS, ORIGIN)
    assert read_rows(path, "confusion") == ROWS
    assert read_provenance(path) == {"table": "confusion", **ORIGIN.to_dict()}


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", "confusion", ROWS, ORIGIN)
        write_document(tmp_path / f"{name}.json", "kind", {"x": {"b": 1, "a": 2}}, ORIGIN)
    assert file_digest(tmp_path / "a.parquet") == file_digest(tmp_path / "b.parquet")
    assert file_digest(tmp_path / "a.json") == file_digest(tmp_path / "b.json")


@pytest.mark.parametrize("name", table_names())
def test_an_empty_table_keeps_its_columns(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / "t.parquet", name, [])
    table = parquet.read_table(tmp_path / "t.parquet", name)
    assert table.num_rows == 0
    assert table.schema.remove_metadata() == table_schema(name)


@pytest.mark.parametrize("rows", [[{**ROWS[0], "extra": 1}], [{"model": "m"}]])
def test_other_columns_than_the_schema_fail(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="columns do not match"):
        write_table(tmp_path / "t.parquet", "confusion", rows)
    assert names(tmp_path) == []


def test_a_value_of_another_type_fails(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowException):
        write_table(tmp_path / "t.parquet", "confusion", [{**ROWS[0], "n": "many"}])
    with pytest.raises(pa.ArrowException):
        write_table(tmp_path / "t.parquet", "confusion", [{**ROWS[0], "n": 2**40}])


def test_an_unknown_table_fails() -> None:
    with pytest.raises(KeyError):
        table_schema("nonsense")


def damaged_tables(path: Path) -> list[tuple[str, bytes]]:
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[20] ^= 0xFF
    return [
        ("empty", b""),
        ("truncated", whole[: len(whole) // 2]),
        ("no end", whole[:-4]),
        ("a bit of a page", bytes(flipped)),
        ("text", b"model,truth\n"),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_damaged_table_is_named(tmp_path: Path, number: int) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, "confusion", ROWS * 50)
    _, content = damaged_tables(path)[number]
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged") as caught:
        parquet.read_table(path, "confusion")
    assert caught.value.where == str(path)
    assert "delete it" in caught.value.remedy


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_rows(tmp_path / "t.parquet", "confusion")
    with pytest.raises(UserError, match="damaged"):
        read_provenance(tmp_path / "t.parquet")


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", "confusion", ROWS)
    with pytest.raises(UserError, match="this is the table 'confusion', not 'probes'"):
        read_rows(tmp_path / "t.parquet", "probes")


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="no provenance"):
        read_rows(tmp_path / "t.parquet", "confusion")


@pytest.mark.parametrize("metadata", [b"{", b"[]", b"{}", b'{"table": "confusion"}', b"\xff"])
def test_a_table_with_foreign_metadata_is_refused(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"a": [1]}).replace_schema_metadata({METADATA_KEY: metadata})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError) as caught:
        read_rows(tmp_path / "t.parquet", "confusion")
    assert caught.value.where == str(tmp_path / "t.parquet")


def test_an_older_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "t.parquet", "confusion", ROWS)
    write_document(tmp_path / "d.json", "kind", {})
    monkeypatch.setattr(parquet, "SCHEMA_VERSION", 99)
    monkeypatch.setattr(documents, "SCHEMA_VERSION", 99)
    with pytest.raises(UserError, match="this version reads 99"):
        read_rows(tmp_path / "t.parquet", "confusion")
    with pytest.raises(UserError, match="this version reads 99"):
        read_document(tmp_path / "d.json", "kind")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_a_document_comes_back(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("documents") / "d.json"
    write_document(path, "kind", content, ORIGIN)
    assert read_document(path, "kind") == content
    assert json.loads(path.read_text())["provenance"]["rule"] == "a_rule"


def test_undefined_numbers_become_null(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    content = {
        "nan": float("nan"),
        "inf": np.inf,
        "array": np.array([1.0, np.nan]),
        "n": np.int32(3),
    }
    write_document(path, "kind", content)
    assert read_document(path, "kind") == {"nan": None, "inf": None, "array": [1.0, None], "n": 3}


def test_a_document_edited_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write_document(path, "kind", {"score": 0.5})
    path.write_text(path.read_text().replace("0.5", "0.9"))
    with pytest.raises(UserError, match="changed by hand"):
        read_document(path, "kind")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"kind": "kind"}', b"\xff\xfe"])
def test_a_damaged_document_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or foreign") as caught:
        read_document(path, "kind")
    assert caught.value.where == str(path)


def test_a_document_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_document(tmp_path / "d.json", "kind", {})
    with pytest.raises(UserError, match="this is a 'kind', not a 'sort'"):
        read_document(tmp_path / "d.json", "sort")
    with pytest.raises(UserError, match="does not exist"):
        read_document(tmp_path / "none.json", "kind")


def test_versions_are_of_what_is_installed() -> None:
    found = package_versions(["numpy", "no-such-package"])
    assert set(found) == {"numpy"}


def test_the_digest_of_a_directory_is_that_of_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "other").write_text("x")
    assert file_digest(tmp_path) == file_digest(tmp_path / "manifest.json")
