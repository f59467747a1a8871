"""Probing an activation store: rows of targets, controls and baselines from its index."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from interpflow.activations import ActivationWriter, SiteRecord, open_store, plan_store
from interpflow.errors import UserError
from interpflow.stats.probe_store import ActivationMatrix, probe_store

N_EXAMPLES, N_TOKENS = 80, 5
WORDS = ("owl", "cat", "elm", "oak")


@dataclass
class Store:
    """Activations of `N_EXAMPLES` × `N_TOKENS` tokens: a noisy copy of a value, and noise."""

    index: pa.Table
    values: np.ndarray
    asked: list

    def matrix(self, site, rows=None):
        rng = np.random.default_rng(3)
        made = rng.normal(size=(len(self.values), 6)).astype(np.float32)
        if site == "signal":
            made[:, 2] += 3 * self.values
        if site == "words":
            words = self.index["word"].to_pylist()
            made[:, :4] = np.array([[word == name for name in WORDS] for word in words])
        self.asked.append(rows)
        return made if rows is None else made[rows]


@pytest.fixture
def store():
    rng = np.random.default_rng(0)
    n = N_EXAMPLES * N_TOKENS
    index = pa.table(
        {
            "example_id": [f"e{k // N_TOKENS}" for k in range(n)],
            "token_position": [k % N_TOKENS for k in range(n)],
            "token_id": rng.integers(0, 12, n),
            "word": rng.choice(WORDS, n),
        }
    )
    return Store(index, rng.normal(size=n), [])


@pytest.fixture
def families():
    return {f"e{k}": f"f{k // 2}" for k in range(N_EXAMPLES)}


def _targets(store, positions=tuple(range(N_TOKENS))):
    """In reverse order: rows must be found by key, not by place."""
    keys = zip(store.index["example_id"].to_pylist(), store.index["token_position"].to_pylist())
    found = {key: value for key, value in zip(keys, store.values) if key[1] in positions}
    return dict(reversed(found.items()))


def test_the_site_that_holds_the_value_is_read_and_noise_is_not(store, families):
    targets = _targets(store)
    signal = probe_store(store, "signal", targets, families, n_controls=5, n_resamples=49, seed=0)
    r2 = signal.probe.scores["r2"]
    assert r2.task.estimate == pytest.approx(0.9, abs=0.05)
    assert sorted(r2.baselines) == ["position", "token", "token_bag"]
    assert all(gain.ci_low > 0.8 for gain in r2.gains.values())
    assert r2.selectivity.estimate > 0.8
    assert r2.task.n_units == N_EXAMPLES / 2
    noise = probe_store(store, "noise", targets, families, n_controls=5, n_resamples=49, seed=0)
    assert noise.probe.scores["r2"].task.estimate == pytest.approx(0, abs=0.05)


def test_only_tokens_with_a_target_are_read_and_come_back_by_row(store, families):
    found = probe_store(
        store, "signal", _targets(store, [1, 3]), families, n_controls=3, n_resamples=9, seed=0
    )
    expected = [k for k in range(N_EXAMPLES * N_TOKENS) if k % N_TOKENS in (1, 3)]
    assert found.rows.tolist() == store.asked[0].tolist() == expected
    assert found.targets == pytest.approx(store.values[expected])
    rows = found.to_rows()
    assert rows[1]["example_id"] == "e0"
    assert rows[1]["token_position"] == 3
    assert rows[1]["family_id"] == "f0"
    assert rows[1]["target"] == store.values[3]
    assert rows[1]["prediction"] == found.probe.predictions[1]
    fold_of = {row["family_id"]: set() for row in rows}
    for row in rows:
        fold_of[row["family_id"]].add(row["fold"])
    assert all(len(folds) == 1 for folds in fold_of.values())


def test_labels_with_controls_by_word(store, families):
    targets = {key: "up" if value > 0 else "down" for key, value in _targets(store).items()}
    found = probe_store(
        store, "signal", targets, families, kind="logistic", control_by="word", n_controls=3,
        baselines=("position",), n_resamples=19, seed=0,
    )  # fmt: skip
    accuracy = found.probe.scores["accuracy"]
    assert accuracy.task.estimate > 0.8
    assert sorted(accuracy.baselines) == ["majority", "position"]
    assert len(accuracy.control_scores) == 3


def test_controls_follow_the_column_they_are_asked_for(store, families):
    scores = [
        probe_store(
            store, "words", _targets(store), families, control_by=column, n_controls=5,
            baselines=(), n_resamples=9, seed=0,
        ).probe.scores["r2"].control_scores
        for column in ("word", "token_id")
    ]  # fmt: skip
    assert scores[0].min() > 0.99
    assert scores[1].max() < 0.2


def test_token_bag_knows_a_running_count_that_the_token_does_not(store, families):
    tokens = store.index["token_id"].to_numpy() == 4
    count = tokens.reshape(N_EXAMPLES, N_TOKENS).cumsum(axis=1).reshape(-1)
    targets = dict(zip(_targets(store), reversed(count.astype(float).tolist())))
    r2 = probe_store(store, "noise", targets, families, n_resamples=9, n_controls=0, seed=0)
    baselines = r2.probe.scores["r2"].baselines
    assert baselines["token_bag"].estimate > 0.95
    assert baselines["token"].estimate < 0.8
    assert len(r2.probe.scores["r2"].control_scores) == 0


def test_a_store_on_disk_is_probed_shard_by_shard(tmp_path, store, families):
    ids, lengths = [f"e{k}" for k in range(N_EXAMPLES)], [N_TOKENS] * N_EXAMPLES
    sites = [SiteRecord("resid_post.L0", width=6, dtype="float16")]
    plan = plan_store(
        ids, lengths, sites, shard_tokens=64, columns={}, model_revision="r", tokenizer_digest="t"
    )
    held = store.matrix("signal")
    with ActivationWriter(tmp_path / "activations", plan) as writer:
        for start in range(0, N_EXAMPLES, 10):
            rows = np.arange(start * N_TOKENS, (start + 10) * N_TOKENS)
            writer.append(
                ids[start : start + 10],
                {"resid_post.L0": held[rows].astype(np.float16)},
                {
                    "token_position": rows % N_TOKENS,
                    "token_id": store.index["token_id"].to_numpy()[rows],
                    "char_start": rows,
                    "char_end": rows + 1,
                    "role": ["word"] * len(rows),
                },
            )
    opened: ActivationMatrix = open_store(tmp_path / "activations")
    settings: dict[str, Any] = {"n_controls": 3, "n_resamples": 9, "seed": 0}
    targets = _targets(store, [0, 2, 4])
    on_disk = probe_store(opened, "resid_post.L0", targets, families, **settings)
    in_memory = probe_store(store, "signal", targets, families, **settings)
    assert on_disk.rows.tolist() == in_memory.rows.tolist()
    assert on_disk.probe.predictions == pytest.approx(in_memory.probe.predictions, abs=0.02)


def test_wrong_use_is_refused(store, families):
    targets = _targets(store)
    with pytest.raises(UserError, match="1 of 401 targets have no activations") as error:
        probe_store(store, "signal", targets | {("e5", 99): 1.0}, families, seed=0)
    assert "'e5', token 99" in str(error.value)
    with pytest.raises(UserError, match="no column 'pos'"):
        probe_store(store, "signal", targets, families, control_by="pos", seed=0)
    with pytest.raises(UserError, match="'e0' has no family"):
        probe_store(store, "signal", targets, {}, seed=0)
    with pytest.raises(UserError, match="unknown baseline 'time'"):
        probe_store(store, "signal", targets, families, baselines=("time",), seed=0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="kind of probe"):
        probe_store(store, "signal", targets, families, kind="lasso", seed=0)  # type: ignore[arg-type]
    few = {key: value for key, value in targets.items() if key[0] in ("e0", "e1", "e2")}
    with pytest.raises(UserError, match="too few for a probe"):
        probe_store(store, "signal", few, families, seed=0)
