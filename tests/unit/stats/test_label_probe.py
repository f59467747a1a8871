"""Probes of yes/no labels: planted signal, family-level leaks, transfer between kinds of rows."""

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.fold_auroc import fold_auroc
from interpflow.stats.label_probe import (
    label_probe,
    paired_accuracy,
    permuted_labels,
    transfer_aurocs,
)

FAMILIES = np.repeat(np.arange(40), 6)
LABELS = np.tile([False, True, False, True, True, False], 40)


def noise(seed: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(FAMILIES), width))


def test_planted_direction_is_read_and_noise_is_not() -> None:
    controls = permuted_labels(LABELS, FAMILIES, 20, seed=1)
    signal = noise(0)
    signal[:, 3] += 1.5 * LABELS
    found = label_probe(
        signal, LABELS, FAMILIES, FAMILIES, controls=controls,
        baselines={"length": noise(5, 1)}, seed=2,
    )  # fmt: skip
    assert found.auroc.task.estimate > 0.8
    assert found.auroc.selectivity.p_value == pytest.approx(1 / 21)
    assert found.auroc.gains["length"].ci_low > 0.1
    assert found.pairs.estimate > 0.8
    assert found.pairs.ci_low > 0.7
    nothing = label_probe(noise(0), LABELS, FAMILIES, FAMILIES, controls=controls, seed=2)
    assert nothing.auroc.task.ci_low < 0.5
    assert nothing.auroc.selectivity.p_value > 0.1
    assert nothing.pairs.ci_low < 0.5 < nothing.pairs.ci_high


def test_what_a_family_gives_away_does_not_raise_the_pairs_in_order() -> None:
    rng = np.random.default_rng(3)
    ranked, shuffled, ordered = [], [], []
    for seed in range(12):
        rate = rng.uniform(0.1, 0.9, 40)
        labels = rng.random(len(FAMILIES)) < rate[FAMILIES]
        features = np.column_stack([rate[FAMILIES], noise(seed)])
        controls = permuted_labels(labels, FAMILIES, 5, seed=seed)
        found = label_probe(features, labels, FAMILIES, FAMILIES, controls=controls, seed=seed)
        ranked.append(found.auroc.task.estimate)
        shuffled.append(found.auroc.control_scores.mean())
        ordered.append(found.pairs.estimate)
    assert np.mean(ranked) > 0.65
    assert np.mean(shuffled) > 0.65  # shuffled within families, as readable
    assert np.mean(ordered) == pytest.approx(0.5, abs=0.04)


def test_permuted_labels_keep_each_family_count() -> None:
    drawn = permuted_labels(LABELS, FAMILIES[::-1], 5, seed=0)
    assert drawn.shape == (240, 5)
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    for column in drawn.T:
        assert np.array_equal(np.bincount(FAMILIES[::-1], column), np.full(40, 3))


def test_pairs_in_order_known_answer() -> None:
    found = paired_accuracy([3, 1, 2, 5, 5, 9], [1, 0, 0, 1, 0, 1], [0, 0, 0, 1, 1, 2])
    assert found.estimate == pytest.approx((1 + 0.5) / 2)
    assert (found.n_units, found.n_dropped) == (2, 1)


def test_transfer_finds_a_shared_direction_only() -> None:
    kinds = np.tile([0, 1, 0, 2, 1, 0], 40)  # 0: without the label
    folds = FAMILIES % 5
    shared, own = noise(6), noise(6)
    shared[:, 0] += 2 * (kinds > 0)
    own[:, 0] += 2 * (kinds == 1)
    own[:, 1] += 2 * (kinds == 2)
    args = (kinds > 0, FAMILIES, kinds, folds)
    known = transfer_aurocs(shared, *args, beside=kinds == 0)
    assert sorted(known) == [1, 2]
    assert min(one.estimate for one in known.values()) > 0.85
    for one in transfer_aurocs(own, *args, beside=kinds == 0).values():
        assert one.ci_low < 0.6
    alone = transfer_aurocs(own, *args)
    assert alone[1].flags == ("SINGLE_CLASS",)


def test_transfer_fits_are_ridges_without_the_kind_and_the_fold() -> None:
    kinds, folds, features = np.tile([0, 1, 0, 2, 1, 0], 40), FAMILIES % 5, noise(8)
    found = transfer_aurocs(features, LABELS, FAMILIES, kinds, folds, penalty=0.1)
    scores = np.zeros(240)
    for fold in range(5):
        train = (folds != fold) & (kinds != 0)
        x, y = features[train], LABELS[train].astype(float)
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        gram = z.T @ z + 0.1 * len(z) * np.eye(8)
        weights = np.linalg.solve(gram, z.T @ (y - y.mean())) / x.std(axis=0)
        scores[folds == fold] = features[folds == fold] @ weights
    own = kinds == 0
    expected = []
    for fold in range(5):
        rows = own & (folds == fold)
        yes, no = scores[rows & LABELS], scores[rows & ~LABELS]
        expected.append(((yes[:, None] > no).mean()) if len(yes) else np.nan)
    if np.isnan(expected).any():
        assert found[0].flags == ("SINGLE_CLASS",)
    else:
        assert found[0].estimate == pytest.approx(np.mean(expected))
    labels = np.random.default_rng(1).random(240) < 0.5
    assert transfer_aurocs(features, labels, FAMILIES, kinds, folds)[0].defined


def test_fold_auroc_known_answer_and_coverage_with_clusters() -> None:
    one = fold_auroc(
        np.array([[3.0], [1], [2], [2]]), np.array([[True], [False], [True], [False]]),
        np.arange(4), 4, np.zeros(4, dtype=np.intp),
    )  # fmt: skip
    assert one.values[0] == pytest.approx(3.5 / 4)
    rng = np.random.default_rng(9)
    truth = 0.7602499389065233  # Φ(1/√2), two unit normals a standard deviation apart
    hits = 0
    for _ in range(300):
        shared = rng.normal(size=50)[np.repeat(np.arange(50), 6)] * np.sqrt(0.5)
        labels = rng.random((300, 1)) < 0.5
        scores = shared + rng.normal(size=300) * np.sqrt(0.5) + labels[:, 0]
        found = fold_auroc(
            scores[:, None], labels, np.repeat(np.arange(50), 6), 50, np.zeros(300, dtype=np.intp)
        )
        estimate = found.contrast(np.ones(1), "AUROC")
        hits += estimate.ci_low <= truth <= estimate.ci_high
    assert 270 <= hits <= 297


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(UserError, match="groups"):
        label_probe(noise(0), LABELS, FAMILIES, FAMILIES // 8, seed=0)
