"""A killed writer goes on where it stopped, and ends with the bytes of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sample_store as sample

from interpflow.activations import ActivationWriter, open_store
from interpflow.activations.files import partial_path
from interpflow.errors import UserError
from interpflow.paths import PROJECT_DIR
from interpflow.tables.provenance import Provenance
from interpflow.workflow.clean import clean_temporary

N = len(sample.LENGTHS)
PROGRAM = """
import os, signal, sys
import sample_store as sample
renames = 0
def die(event, arguments):
    global renames
    if event == "os.rename":
        renames += 1
        if renames == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
from pathlib import Path
with sample.ActivationWriter(Path(sys.argv[1]), sample.plan()) as writer:
    for prompts in writer.remaining():
        for prompt in prompts:
            sample.append(writer, [prompt])
"""


def killed(path: Path, rename: int) -> bool:
    """Write in another process that is killed before a rename; False when it was never reached."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(rename)],
        env={**os.environ, "PYTHONPATH": f"{PROJECT_DIR / 'workflow_scripts'}:{here}"},
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def finish(path: Path) -> list[int]:
    """Go on with a store; returns the prompts that were still to do."""
    todo = []
    with ActivationWriter(path, sample.plan()) as writer:
        for prompts in writer.remaining():
            todo += list(prompts)
            sample.append(writer, list(prompts))
    return todo


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write(tmp_path_factory.mktemp("whole") / "a")


# The plan, three names a shard (index, shard, document), the tables and the manifest, the store.
N_SHARDS = sample.plan().n_shards
N_RENAMES = 1 + 3 * N_SHARDS + 3 + 1


@pytest.mark.parametrize("rename", [2, 7, 3 * N_SHARDS + 2, N_RENAMES])
def test_killed_before_a_rename(whole: Path, tmp_path: Path, rename: int) -> None:
    path = tmp_path / "a"
    assert killed(path, rename)
    assert not path.exists()
    with pytest.raises(UserError, match="unfinished"):
        open_store(path)
    before = {
        name: os.stat(partial_path(path) / name).st_mtime_ns
        for name in sample.contents(partial_path(path))
        if name.startswith("shard-")
    }
    todo = finish(path)
    n_finished = min((rename - 2) // 3, N_SHARDS)
    finished = sum(len(sample.plan().prompts(shard)) for shard in range(n_finished))
    assert todo == list(range(finished, N)), "finished shards are not made again"
    assert sample.contents(path) == sample.contents(whole)
    for name, time in list(before.items())[:n_finished]:
        assert (path / name).stat().st_mtime_ns == time, "nor touched"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_the_kills_cover_the_whole_life_of_a_writer(tmp_path: Path) -> None:
    assert not killed(tmp_path / "a", N_RENAMES + 1)


def power_cut_after(prompts: Sequence[int]) -> Iterator[Sequence[int]]:
    yield prompts
    raise RuntimeError("power cut")


def test_an_error_keeps_finished_shards_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    path, first = tmp_path / "a", sample.plan().prompts(0)
    with pytest.raises(RuntimeError, match="power cut"):
        sample.write(path, power_cut_after([*first, first.stop]))
    left = sample.contents(partial_path(path))
    assert [name for name in left if "safetensors" in name] == ["shard-00000.safetensors"]
    with ActivationWriter(path, sample.plan()) as writer:
        assert writer.done_shards == {0}
        # Prompts of a finished shard are passed over, so a caller need not ask what remains.
        sample.append(writer, range(N))
        assert writer.remaining() == ()
    assert sample.contents(path) == sample.contents(whole)


def test_an_error_before_the_first_shard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        sample.write(tmp_path / "a", power_cut_after([0]))
    assert list(tmp_path.iterdir()) == []


def half(path: Path, **changes: object) -> None:
    """Leave a store of one finished shard."""
    with pytest.raises(RuntimeError, match="power cut"):
        sample.write(path, power_cut_after(sample.plan(**changes).prompts(0)), **changes)


@pytest.mark.parametrize(
    "changes",
    [{"model_revision": "new"}, {"tokenizer_digest": "new"}, {"settings": {"a": 1}},
     {"shard_tokens": 4}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_another_plan_begins_afresh(whole: Path, tmp_path: Path, changes: dict) -> None:
    half(tmp_path / "a", **changes)
    assert finish(tmp_path / "a") == list(range(N))
    assert sample.contents(tmp_path / "a") == sample.contents(whole)


def test_another_provenance_begins_afresh(tmp_path: Path) -> None:
    half(tmp_path / "a")
    with ActivationWriter(tmp_path / "a", sample.plan(), provenance=Provenance(code="x")) as writer:
        assert not writer.done_shards
        sample.append(writer, range(N))


@pytest.mark.parametrize(
    "victim", ["shard-00000.safetensors", "parts/index-00000.parquet", "parts/shard-00000.json",
               "plan.json"],
)  # fmt: skip
def test_a_damaged_part_is_made_again(whole: Path, tmp_path: Path, victim: str) -> None:
    half(tmp_path / "a")
    part = partial_path(tmp_path / "a") / victim
    part.write_bytes(part.read_bytes()[:-7])
    assert finish(tmp_path / "a") == list(range(N))
    assert sample.contents(tmp_path / "a") == sample.contents(whole)


def test_cleaning_keeps_what_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half(tmp_path / "a")
    (tmp_path / ".b.tmp-17").write_bytes(b"half")
    inside = partial_path(tmp_path / "a") / ".shard-00001.safetensors.tmp-fill"
    inside.write_bytes(b"half")
    clean_temporary(tmp_path)
    printed = capsys.readouterr().out
    assert "deleted 1 temporary files" in printed
    assert f"kept {partial_path(tmp_path / 'a')}" in printed
    assert finish(tmp_path / "a") != list(range(N))
