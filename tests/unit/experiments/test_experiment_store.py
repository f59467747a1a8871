"""Runs are kept once, whoever writes them, and nothing unfinished is taken for a result."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from interpflow.errors import UserError
from interpflow.experiments.run_files import DONE_NAME, ENVIRONMENT_NAME, SPEC_NAME
from interpflow.experiments.spec import RunSpec
from interpflow.experiments.store import Store

FORK = multiprocessing.get_context("fork")


def spec(items: Sequence[str] = ("a", "b", "c"), plan: str = "0 1", **changes: Any) -> RunSpec:
    given = {"model": {"name": "m", "weights": "w"}, "measure": "text", **changes}
    return RunSpec(plan=plan, item_ids=tuple(items), **given)


def rows_of(items: Sequence[str], value: float = 0.5) -> list[dict[str, Any]]:
    return [
        {
            "document_id": item, "n_tokens": 3, "loss": 1.0, "delta_loss": value, "kl": 0.1,
            "top1_kept": 1.0, "rank": 2.0,
        }
        for item in items
    ]  # fmt: skip


def never(_items: Sequence[str]) -> list[dict[str, Any]]:
    raise AssertionError("what is stored is not run again")


def test_a_run_is_found_again_by_another_process(tmp_path: Path) -> None:
    first = Store(tmp_path).measured(spec(), rows_of)
    assert (first.n_new, first.n_cached, first.runs) == (3, 0, (spec().key,))
    again = Store(tmp_path).measured(spec(), never)
    assert (again.n_new, again.n_cached) == (0, 3)
    assert again.rows == first.rows
    assert [row["document_id"] for row in again.rows] == ["a", "b", "c"]
    assert {row["run"] for row in again.rows} == {spec().key}
    assert {row["plan"] for row in again.rows} == {"0 1"}


def test_only_missing_items_are_run_whoever_asked_first(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), []

    def run(items: Sequence[str]) -> list[dict[str, Any]]:
        asked.append(tuple(items))
        return rows_of(items, float(len(asked)))

    store.measured(spec(("b", "d")), run)
    found = store.measured(spec(("a", "b", "c")), run)
    assert asked == [("b", "d"), ("a", "c")]
    assert [row["delta_loss"] for row in found.rows] == [2.0, 1.0, 2.0]
    assert (found.n_new, found.n_cached, len(found.runs)) == (2, 1, 2)
    assert store.missing(spec(("a", "b", "c", "d"))) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"plan": "1 0"}, {"model": {"name": "m", "weights": "other"}}, {"settings": {"n": 1}},
        {"dtype": "bfloat16"}, {"device_kind": "cuda"}, {"seed": 1}, {"code": "new"},
    ],
)  # fmt: skip
def test_whatever_decides_a_number_makes_another_cell(change: dict[str, Any]) -> None:
    assert spec(**change).cell != spec().cell


def test_names_and_the_order_of_items_decide_nothing() -> None:
    renamed = spec(model={"name": "other", "weights": "w"})
    assert (renamed.cell, renamed.key) == (spec().cell, spec().key)
    assert spec(("c", "a", "b", "a")).key == spec().key
    assert spec(("a",)).cell == spec().cell
    assert spec(("a",)).key != spec().key


def test_the_spec_stands_before_the_run_and_done_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def run(items: Sequence[str]) -> list[dict[str, Any]]:
        (opened,) = store.unfinished()
        assert json.loads((opened / SPEC_NAME).read_text())["key"] == spec().key
        assert not (opened / DONE_NAME).exists()
        assert Store(tmp_path).missing(spec()) == ("a", "b", "c")
        return rows_of(items)

    store.measured(spec(), run)
    names = {path.name for path in store.directory(spec()).iterdir()}
    assert names == {SPEC_NAME, ENVIRONMENT_NAME, DONE_NAME, "surgery_text_losses.parquet"}
    assert not store.unfinished()


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(_items: Sequence[str]) -> list[dict[str, Any]]:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        store.measured(spec(), fail)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="gave rows of 2"):
        store.measured(spec(), lambda items: rows_of(items[:2]))
    assert store.missing(spec()) == ("a", "b", "c")


def _killed(root: Path) -> None:
    def run(_items: Sequence[str]) -> list[dict[str, Any]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    Store(root).measured(spec(), run)


def test_a_killed_run_is_taken_for_nothing_and_done_again(tmp_path: Path) -> None:
    process = FORK.Process(target=_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    store = Store(tmp_path)
    assert len(store.unfinished()) == 1
    assert store.runs() == []
    assert store.measured(spec(), rows_of).n_new == 3


def _write(root: Path, start: Any, number: int) -> None:
    start.wait()
    for plan in range(12):
        # The same items in every process, and some of its own.
        items = ("a", "b", f"own{number}")
        Store(root).measured(spec(items, plan=str(plan)), rows_of)
        Store(root).measured(spec(("a", "b"), plan=f"{plan} 0"), rows_of)


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    start = FORK.Barrier(4)
    processes = [FORK.Process(target=_write, args=(tmp_path, start, n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    store = Store(tmp_path)
    assert not store.unfinished()
    items = ("a", "b", *(f"own{n}" for n in range(4)))
    for plan in range(12):
        assert len(store.stored(spec(items, plan=str(plan))).rows) == len(items)
        assert store.missing(spec(("a", "b"), plan=f"{plan} 0")) == ()


def damage_rows(directory: Path) -> None:
    path = directory / "surgery_text_losses.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut_rows(directory: Path) -> None:
    path = directory / "surgery_text_losses.parquet"
    path.write_bytes(path.read_bytes()[:20])


def change_spec(directory: Path) -> None:
    path = directory / SPEC_NAME
    path.write_text(path.read_text().replace(spec().key, "0" * 16))


def empty_spec(directory: Path) -> None:
    (directory / SPEC_NAME).write_text("")


def remove_rows(directory: Path) -> None:
    (directory / "surgery_text_losses.parquet").unlink()


@pytest.mark.parametrize("harm", [damage_rows, cut_rows, change_spec, empty_spec, remove_rows])
def test_a_damaged_run_is_named(tmp_path: Path, harm: Any) -> None:
    store = Store(tmp_path)
    store.measured(spec(), rows_of)
    harm(store.directory(spec()))
    with pytest.raises(UserError) as caught:
        Store(tmp_path).measured(spec(), never)
    assert str(store.directory(spec())) in caught.value.where
    assert "delete this directory" in caught.value.remedy


def test_a_directory_without_done_gives_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.measured(spec(), rows_of)
    (store.directory(spec()) / DONE_NAME).write_text("")
    again = Store(tmp_path).measured(spec(), lambda items: rows_of(items, 7.0))
    assert [row["delta_loss"] for row in again.rows] == [7.0] * 3
    assert not store.unfinished()


def test_many_plans_at_once_are_merged_in_their_order(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    specs = [spec(plan=str(number)) for number in range(5)]

    def run(missing: Sequence[RunSpec]) -> list[list[dict[str, Any]]]:
        calls.append([each.plan for each in missing])
        return [rows_of(each.item_ids, float(each.plan)) for each in missing]

    store.measured(specs[2], rows_of)
    store.measured_all([*specs, specs[0]], run)
    assert calls == [["0", "1", "3", "4"]]
    table = store.merged(specs)
    assert isinstance(table, pa.Table)
    assert table["plan"].to_pylist() == [str(n) for n in range(5) for _ in range(3)]
    assert table["delta_loss"].to_pylist()[-1] == 4.0
    with pytest.raises(UserError, match="never measured"):
        store.merged([spec(plan="9")])


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(UserError, match="no measure"):
        spec(measure="guess")
