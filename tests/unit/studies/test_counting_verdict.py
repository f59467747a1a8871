"""The verdict by rule, on toy counters whose mechanism is known."""

import numpy as np
import pandas as pd
import pytest

from interpflow.config.counting import CountingMediation
from interpflow.config.identity import split_of
from interpflow.stats.record import Estimate
from interpflow.studies.counting.slopes import assess_windows, hybrid_check, slope_rows
from interpflow.studies.counting.verdict import Decodability, answer, sentence

SETTINGS = CountingMediation(n_permutations=499)


def toy_table(share, *, noise=0.05, n_pairs=240, control_leak=0.0, seed=0):
    """Prefix-pair rows of a counter that routes `share` of the count through the suffix states
    of layer 1, and nothing through any other window or layer."""
    rng = np.random.default_rng(seed)
    rows = []
    for pair in range(n_pairs):
        family = f"family{pair}"
        delta = int(rng.choice([-3, -2, -1, 1, 2, 3]))
        for direction, sign in (("denoise", 1), ("noise", -1)):
            for window in ("prefix", "site", "window", "suffix"):
                for component, layer in (("embed", -1), ("resid_post", 0), ("resid_post", 1)):
                    for donor in ("real", "control", "random"):
                        dose = sign * delta
                        moved = rng.normal(0, noise)
                        if window == "suffix" and layer == 1 and donor == "real":
                            moved += share * dose
                        if donor == "control":
                            moved += control_leak * dose
                        if window == "prefix" and component == "embed" and donor == "real":
                            moved = float(dose)
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
                                "donor_expected_count": 4.0 + dose,
                                "argmax_candidate": round(4 + moved),
                                "base_argmax_candidate": 4.0,
                            }
                        )
    return pd.DataFrame(rows)


def probe(decodable):
    score = Estimate(quantity="partial R²", estimate=0.9 if decodable else 0.0, p_value=0.05)
    return Decodability(1, score, 0.1, 0.2, decodable)


@pytest.mark.parametrize(
    ("share", "decodable", "expected"),
    [
        (1.0, True, "used"),
        (0.6, True, "used"),
        (0.0, True, "decodable, not used"),
        (0.0, False, "neither"),
    ],
)
def test_verdict_of_toy_counters(share, decodable, expected):
    tests = assess_windows("toy", toy_table(share), SETTINGS, seed=0)
    found = answer(tests, probe(decodable), SETTINGS.smallest_effect)
    assert found == expected
    suffix = next(test for test in tests if test.window == "suffix")
    assert suffix.slope.estimate == pytest.approx(share, abs=0.02)
    assert "toy" in sentence("toy", found, tests, probe(decodable), 0.1)
    if share:
        assert suffix.layer == 1


def test_a_noisy_null_is_undecided_not_absent():
    tests = assess_windows("toy", toy_table(0.0, noise=6.0, n_pairs=60), SETTINGS, seed=0)
    assert answer(tests, probe(True), SETTINGS.smallest_effect) == "undecided"


def test_a_leaking_control_forbids_the_claim():
    table = toy_table(0.8, control_leak=0.5)
    tests = assess_windows("toy", table, SETTINGS, seed=0)
    assert answer(tests, probe(True), SETTINGS.smallest_effect) != "used"


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
    site = assess_windows("toy", table, SETTINGS, seed=0)[0]
    assert site.layer == 0
    assert abs(site.slope.estimate) < 0.05


def test_hybrid_check_fails_when_the_patch_is_disconnected():
    table = toy_table(0.0)
    assert hybrid_check(table)["passed"]
    table["expected_count"] = table["base_expected_count"]
    assert not hybrid_check(table)["passed"]


def test_slope_rows_hold_every_split_window_layer_and_donor():
    rows = list(slope_rows("toy", toy_table(0.5), SETTINGS))
    assert len(rows) == 2 * 4 * 3 * 3
    found = next(
        row
        for row in rows
        if (row["split"], row["window"], row["donor"], row["layer"])
        == ("confirm", "suffix", "real", 1)
    )
    assert found["ci_low"] < 0.5 < found["ci_high"]
