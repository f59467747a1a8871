"""Activations on disk: whole or absent, checked when read, rows aligned with their index."""

import numpy as np
import pytest

from interpflow.activations.store import read_activations, write_activations
from interpflow.errors import UserError


def chunks(n=3, rows=4):
    for chunk in range(n):
        base = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) + 100 * chunk
        index = [
            {"example_id": f"e{chunk}", "word": i, "token_position": 5 + i} for i in range(rows)
        ]
        yield {"embed": base, "resid_post.L0": -base}, index


def test_round_trip_over_shards(tmp_path):
    assert write_activations(tmp_path / "a", chunks()) == 12
    found = read_activations(tmp_path / "a")
    assert found.sites == ("embed", "resid_post.L0")
    assert found.index["example_id"].to_pylist()[4] == "e1"
    np.testing.assert_array_equal(found.matrix("embed")[4], [100, 101])
    np.testing.assert_array_equal(found.matrix("resid_post.L0"), -found.matrix("embed"))


def test_a_failure_leaves_nothing_behind(tmp_path):
    def failing():
        yield from chunks(1)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_activations(tmp_path / "a", failing())
    assert list(tmp_path.iterdir()) == []


def test_rewriting_replaces_the_old_directory(tmp_path):
    write_activations(tmp_path / "a", chunks(3))
    write_activations(tmp_path / "a", chunks(1))
    assert len(read_activations(tmp_path / "a").index) == 4


@pytest.mark.parametrize("victim", ["shard-00001.safetensors", "index.parquet", "manifest.json"])
def test_a_damaged_part_is_named(tmp_path, victim):
    write_activations(tmp_path / "a", chunks())
    part = tmp_path / "a" / victim
    part.write_bytes(part.read_bytes()[:-7])
    with pytest.raises(UserError):
        read_activations(tmp_path / "a")


def test_an_unknown_site_and_misaligned_rows_are_refused(tmp_path):
    write_activations(tmp_path / "a", chunks())
    with pytest.raises(UserError, match="no activations of mlp"):
        read_activations(tmp_path / "a").matrix("mlp")
    with pytest.raises(ValueError, match="activation rows"):
        write_activations(tmp_path / "b", [({"embed": np.zeros((2, 2))}, [])])
