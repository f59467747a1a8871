"""Probe of a running count beyond position, with control word sets."""

import math

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.control_tasks import draw_control_sets, running_counts
from interpflow.stats.folds import group_folds
from interpflow.stats.partial_probe import best_layer_p, partial_probe, position_only_r2
from interpflow.stats.record import NO_VARIATION

N_WORDS, N_LISTS = 10, 150


@pytest.fixture(scope="module")
def lists():
    """Rows of 150 lists: running count, position, list id, 20 control counts."""
    rng = np.random.default_rng(0)
    member = rng.random((21, N_LISTS, N_WORDS)) < 0.5
    counts = member.cumsum(axis=2).reshape(21, -1).T.astype(float)
    return {
        "count": counts[:, 0],
        "controls": counts[:, 1:],
        "position": np.tile(np.arange(N_WORDS), N_LISTS),
        "list": np.repeat(np.arange(N_LISTS), N_WORDS),
        "rng": rng,
    }


def _probe(lists, features, **changes):
    arguments = {"controls": lists["controls"], "seed": 1} | changes
    return partial_probe(
        np.asarray(features, dtype=np.float32),
        lists["count"],
        lists["position"],
        lists["list"],
        **arguments,
    )


@pytest.mark.parametrize(
    ("n", "p", "r2"), [(10, 0.5, 0.6), (20, 0.3, 0.5757576), (10, 0.3, 0.3913043)]
)
def test_position_alone_reaches(n, p, r2):
    assert position_only_r2(n, p) == pytest.approx(r2, abs=1e-7)


def test_position_features_hold_nothing_beyond_position(lists):
    features = np.eye(N_WORDS)[lists["position"]]
    found = _probe(lists, features)
    assert found.r2_position == pytest.approx(0.60, abs=0.04)
    assert found.r2_full == pytest.approx(0.60, abs=0.04)
    assert found.partial_r2.estimate == pytest.approx(0, abs=0.01)
    assert found.selectivity.p_value > 0.05


def test_exact_running_count_is_found_whole(lists):
    features = np.column_stack([lists["count"], lists["position"]])
    found = _probe(lists, features)
    assert found.partial_r2.estimate == pytest.approx(1, abs=1e-6)
    assert found.selectivity.estimate > 0.9
    assert found.selectivity.p_value == pytest.approx(1 / 21)


def test_noise_gives_no_partial_r2_and_a_chosen_penalty(lists):
    features = lists["rng"].normal(size=(N_LISTS * N_WORDS, 60))
    found = _probe(lists, features)
    assert found.partial_r2.estimate == pytest.approx(0, abs=0.02)
    assert found.partial_r2.ci_low < 0.01
    assert min(found.penalties) >= 0.1
    weak = _probe(lists, features, penalties=(1e-5,), controls=None)
    assert weak.partial_r2.estimate < found.partial_r2.estimate


def test_representation_of_all_words_is_not_selective(lists):
    everything = np.column_stack([lists["count"], lists["controls"]])
    found = _probe(lists, everything)
    assert found.partial_r2.estimate > 0.99
    assert found.selectivity.estimate == pytest.approx(0, abs=0.01)


def test_scale_and_shift_of_features_change_nothing(lists):
    features = lists["rng"].normal(size=(N_LISTS * N_WORDS, 8)) + lists["count"][:, None]
    plain = _probe(lists, features)
    moved = _probe(lists, features * np.logspace(-2, 2, 8) + 3)
    assert moved.partial_r2.estimate == pytest.approx(plain.partial_r2.estimate, abs=1e-3)


def test_closed_form_equals_scikit_learn_with_position_dummies(lists):
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(3)
    features = rng.normal(size=(N_LISTS * N_WORDS, 5)) + 0.5 * lists["count"][:, None]
    found = _probe(lists, features, penalties=(1e-9,), controls=None)
    folds = group_folds(lists["list"], 5, 1)
    dummies = np.eye(N_WORDS)[lists["position"]]
    full, base = 0.0, 0.0
    x = features.astype(np.float32).astype(np.float64)
    for fold in range(5):
        test = folds == fold
        y, design = lists["count"], np.column_stack([dummies, x])
        for matrix, which in ((design, "full"), (dummies, "base")):
            fit = LinearRegression(fit_intercept=False).fit(matrix[~test], y[~test])
            error = float(((y[test] - fit.predict(matrix[test])) ** 2).sum())
            full, base = (full + error, base) if which == "full" else (full, base + error)
    assert found.partial_r2.estimate == pytest.approx(1 - full / base, abs=1e-6)


def test_rows_of_a_list_never_fall_in_two_folds(lists):
    folds = group_folds(lists["list"], 5, 0)
    assert all(len(set(folds[lists["list"] == i])) == 1 for i in range(N_LISTS))
    assert set(np.bincount(folds) // N_WORDS) == {30}
    with pytest.raises(UserError, match="folds"):
        group_folds([1, 1, 2], 5, 0)


def test_memorised_lists_look_decodable_only_when_folds_split_them(lists):
    # One list-level value repeated in ten rows: list identity predicts, nothing generalises.
    value = np.repeat(np.random.default_rng(4).normal(size=N_LISTS), N_WORDS)
    identity = np.random.default_rng(5).normal(size=(N_LISTS, 120))[lists["list"]]
    rows = np.arange(len(value))
    positions = np.zeros(len(value))
    held = partial_probe(identity, value, positions, lists["list"], seed=0)
    split = partial_probe(identity, value, positions, rows, seed=0)
    assert held.partial_r2.estimate < 0.05
    assert split.partial_r2.estimate > 0.5


def test_constant_target_is_undefined(lists):
    found = partial_probe(
        np.ones((20, 2)), np.zeros(20), np.zeros(20), np.repeat(np.arange(10), 2), seed=0
    )
    assert found.partial_r2.flags == (NO_VARIATION,)
    assert math.isnan(found.selectivity.estimate)
    with pytest.raises(UserError, match="finite"):
        partial_probe(np.full((20, 2), np.nan), np.zeros(20), np.zeros(20), np.arange(20), seed=0)


def test_best_layer_competes_with_best_layers():
    task = [0.1, 0.5, np.nan]
    controls = np.array([[0.0, 0.6, 0.1], [0.2, 0.1, 0.0], [np.nan] * 3])
    assert best_layer_p(task, controls) == pytest.approx(2 / 4)
    assert math.isnan(best_layer_p([np.nan], controls[:1]))


def test_control_sets_keep_size_and_frequency_profile():
    bands = {f"w{i}": ("high", "mid", "low")[i % 3] for i in range(60)}
    categories = {"fruit": ["w0", "w1", "w3"], "tool": ["w2", "w5"]}
    sets = draw_control_sets(categories, bands, seed=0)
    assert len(sets) == 20
    for chosen in sets:
        assert sorted(bands[word] for word in chosen["fruit"]) == ["high", "high", "mid"]
        assert sorted(bands[word] for word in chosen["tool"]) == ["low", "low"]
    assert len({chosen["fruit"] for chosen in sets}) > 10
    assert sets == draw_control_sets(categories, bands, seed=0)
    with pytest.raises(UserError, match="frequency band"):
        draw_control_sets({"fruit": ["zzz"]}, bands, seed=0)


def test_running_counts_follow_positions_within_lists():
    words = ["b", "a", "c", "a", "a"]
    found = running_counts(
        words,
        ["x"] * 5,
        [1, 1, 1, 2, 2],
        [1, 0, 2, 0, 1],
        [{"x": {"a"}}, {"x": {"b", "c"}}],
    )
    assert found[:, 0].tolist() == [1, 1, 1, 1, 2]
    assert found[:, 1].tolist() == [1, 0, 2, 0, 0]
    with pytest.raises(UserError, match="consecutive"):
        running_counts(["a", "b"], ["x", "x"], [1, 1], [0, 2], [{"x": {"a"}}])
