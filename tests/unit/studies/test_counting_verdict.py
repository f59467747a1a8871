"""The verdict by rule, on toy counters whose mechanism is known."""

import numpy as np
import pandas as pd
import pytest

from interpflow.config.counting import CountingMediation
from interpflow.config.identity import split_of
from interpflow.stats.record import Estimate
from interpflow.studies.counting.slopes import (
    assess_windows,
    ceiling,
    hybrid_check,
    slope_rows,
)
from interpflow.studies.counting.verdict import Decodability, Evidence, answer, sentence

SETTINGS = CountingMediation(n_permutations=499)


WINDOWS = ("prefix", "far", "suffix", "window", "site")


def toy_table(share, *, copied=0.0, follows=1.0, noise=0.05, n_pairs=240, control_leak=0.0, seed=0):
    """Prefix-pair rows of a counter that routes `share` of the count through the states of layer 1
    from word k on, copies `copied` of it to the words next to the change only, and moves by
    `follows` of the difference when the text itself is exchanged."""
    rng = np.random.default_rng(seed)
    rows = []
    for pair in range(n_pairs):
        family = f"family{pair}"
        delta = int(rng.choice([-3, -2, -1, 1, 2, 3]))
        for direction, sign in (("denoise", 1), ("noise", -1)):
            for window in WINDOWS:
                for component, layer in (("embed", -1), ("resid_post", 0), ("resid_post", 1)):
                    for donor in ("real", "control", "random"):
                        dose = sign * delta
                        moved = rng.normal(0, noise)
                        if layer == 1 and donor == "real" and window in ("far", "suffix"):
                            moved += share * dose
                        if layer == 1 and donor == "real" and window != "far":
                            moved += copied * dose
                        if donor == "control":
                            moved += control_leak * dose
                        if window == "prefix" and component == "embed" and donor == "real":
                            moved = follows * dose
                        rows.append(
                            {
                                "pair_id": str(pair),
                                "family_id": family,
                                "split": split_of(family),
                                "kind": "prefix",
                                "direction": direction,
                                "donor": donor,
                                "component": component,
                                "layer": layer,
                                "head": -1,
                                "slot": window,
                                "delta": dose,
                                "expected_count": 4 + moved,
                                "base_expected_count": 4.0,
                                "donor_expected_count": 4.0 + follows * dose,
                                "argmax_candidate": round(4 + moved),
                                "base_argmax_candidate": 4.0,
                            }
                        )
    return pd.DataFrame(rows)


def probe(decodable):
    score = Estimate(quantity="partial R²", estimate=0.9 if decodable else 0.0, p_value=0.05)
    return Decodability(1, score, 0.1, 0.2, decodable)


def evidence(table, *, decodable=True):
    return Evidence(
        tuple(assess_windows("toy", table, SETTINGS, seed=0)),
        ceiling(table, SETTINGS),
        None if decodable is None else probe(decodable),
        SETTINGS.smallest_effect,
    )


@pytest.mark.parametrize(
    ("share", "decodable", "expected"),
    [
        (1.0, True, "used"),
        (0.6, True, "used"),
        (1.0, None, "used"),
        (0.0, True, "decodable, not used"),
        (0.0, False, "neither"),
        (0.0, None, "undecided"),
    ],
)
def test_verdict_of_toy_counters(share, decodable, expected):
    found = evidence(toy_table(share), decodable=decodable)
    assert answer(found) == expected
    assert found.decisive.slope.estimate == pytest.approx(share, abs=0.02)
    assert found.decisive.slope.ci_low < share < found.decisive.slope.ci_high
    assert "toy" in sentence("toy", expected, found)
    if share:
        assert found.decisive.layer == 1


def test_copies_of_the_last_few_words_are_no_running_count():
    found = evidence(toy_table(0.0, copied=0.7))
    suffix = next(test for test in found.tests if test.window == "suffix")
    assert suffix.passed(SETTINGS.smallest_effect)
    assert answer(found) == "decodable, not used"
    assert "copy their neighbours" in sentence("toy", answer(found), found)


def test_a_model_that_hardly_follows_its_input_is_undecided():
    found = evidence(toy_table(0.0, follows=0.1))
    assert answer(found) == "undecided"
    assert "follows even an exchanged prefix by only 0.100" in sentence("toy", "undecided", found)


def test_a_noisy_null_is_undecided_not_absent():
    found = evidence(toy_table(0.0, noise=6.0, n_pairs=60))
    assert answer(found) == "undecided"
    assert "80 % power" in sentence("toy", "undecided", found)


def test_a_leaking_control_forbids_the_claim():
    found = evidence(toy_table(0.8, control_leak=0.5))
    assert answer(found) == "undecided"
    assert "control donor" in sentence("toy", "undecided", found)


def test_too_few_pairs_beyond_the_window_are_undecided():
    table = toy_table(1.0)
    found = evidence(table[(table["slot"] != "far") | (table["pair_id"] == "3")])
    assert [test.window for test in found.tests] == ["suffix", "window", "site"]
    assert answer(found) == "undecided"
    assert "too few prefix pairs" in sentence("toy", "undecided", found)


def test_the_layer_is_not_chosen_on_the_pairs_that_test_it():
    table = toy_table(0.0)
    chosen = (table["split"] == "confirm") & (table["layer"] == 1) & (table["slot"] == "site")
    chosen &= table["donor"] == "real"
    table.loc[chosen, "expected_count"] += table.loc[chosen, "delta"]
    explored = table[(table["split"] != "confirm") & (table["slot"] == "site")]
    for layer in (0, 1):
        rows = explored[(explored["layer"] == layer) & (explored["donor"] == "real")]
        bonus = 0.05 if layer == 0 else -0.05
        table.loc[rows.index, "expected_count"] += bonus * table.loc[rows.index, "delta"]
    site = assess_windows("toy", table, SETTINGS, seed=0)[-1]
    assert site.layer == 0
    assert abs(site.slope.estimate) < 0.05


def test_hybrid_check_fails_when_the_patch_is_disconnected():
    table = toy_table(0.0)
    assert hybrid_check(table)["passed"]
    table["expected_count"] = table["base_expected_count"]
    assert not hybrid_check(table)["passed"]


def test_slope_rows_hold_every_split_window_layer_and_donor():
    rows = list(slope_rows("toy", toy_table(0.5), SETTINGS))
    assert len(rows) == 2 * len(WINDOWS) * 3 * 3
    found = next(
        row
        for row in rows
        if (row["split"], row["window"], row["donor"], row["layer"])
        == ("confirm", "suffix", "real", 1)
    )
    assert found["ci_low"] < 0.5 < found["ci_high"]
