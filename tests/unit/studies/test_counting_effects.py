"""Effect maps from rows whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from interpflow.config.counting import CountingMediation
from interpflow.stats.pair_values import pair_values
from interpflow.studies.counting.effects import estimate_effects
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.schemas import table_schema

SETTINGS = CountingMediation(n_permutations=499)
N_PAIRS = 60
# Recovery of each place by denoising and by noising: half at the word, all at the answer.
TRUE = {"item": 0.5, "later_items": 0.0, "answer": 1.0}


def rows(seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for pair in range(N_PAIRS):
        total = rng.normal(6, 1)
        for direction in ("denoise", "noise"):
            base, donor = (-total / 2, total / 2)
            if direction == "noise":
                base, donor = donor, base
            for kind_of_donor in ("real", "control"):
                for slot, share in TRUE.items():
                    if slot == "later_items" and pair % 5 == 0:
                        continue
                    effect = share * (donor - base) if kind_of_donor == "real" else 0.0
                    value = base + effect + rng.normal(0, 0.2)
                    row = {
                        "pair_id": f"p{pair}",
                        "family_id": f"f{pair}",
                        "split": "confirm",
                        "kind": "minimal",
                        "direction": direction,
                        "donor": kind_of_donor,
                        "component": "resid_post",
                        "layer": 0,
                        "head": -1,
                        "slot": slot,
                        "delta": 1,
                        "clean_count": 4,
                        "corrupted_count": 3,
                        "ran": True,
                        "logit_difference": value,
                        "base_logit_difference": base,
                        "donor_logit_difference": donor,
                        "kl": 2.0 * (1 - share) if kind_of_donor == "real" else 2.0,
                        "base_kl": 2.0,
                        "donor_kl": 0.0,
                        "expected_count": 3.5,
                        "base_expected_count": 3.0,
                        "donor_expected_count": 4.0,
                        "argmax_candidate": 4.0 if value > 0 else 3.0,
                        "base_argmax_candidate": 4.0 if base > 0 else 3.0,
                        "donor_argmax_candidate": 4.0 if donor > 0 else 3.0,
                    }
                    out.append(row)
    return out


@pytest.fixture
def estimated(tmp_path):
    write_table(tmp_path / "pairs.parquet", "pair_effects", rows())
    write_document(tmp_path / "gates.json", "counting_gates", {"status": "run"})
    estimate_effects(
        "toy", tmp_path / "pairs.parquet", tmp_path / "gates.json", SETTINGS, 0,
        map_path=tmp_path / "map.parquet", estimates_path=tmp_path / "estimates.parquet",
    )  # fmt: skip
    return (
        read_rows(tmp_path / "map.parquet", "effect_map"),
        read_rows(tmp_path / "estimates.parquet", "estimates"),
    )


def test_recovery_and_damage_are_recovered(estimated):
    for row in estimated[0]:
        if row["quantity"] in ("recovery", "damage"):
            share = TRUE[row["slot"]]
            assert row["estimate"] == pytest.approx(share, abs=0.03)
            assert row["n_units"] == (48 if row["slot"] == "later_items" else 60)
        if row["quantity"] == "KL recovery":
            assert row["estimate"] == pytest.approx(TRUE[row["slot"]], abs=1e-9)


def test_only_real_effects_are_significant(estimated):
    found = {
        (row["direction"], row["slot"]): row["p_adjusted"]
        for row in estimated[0]
        if row["quantity"].endswith("contrast with control donor")
    }
    assert len(found) == 6
    for (_, slot), p in found.items():
        assert (p < 0.05) == (slot != "later_items")


def test_decomposition_identities_and_interchange(estimated):
    by_quantity = {
        row["quantity"]: row["estimate"]
        for row in estimated[1]
        if row["factor"] == "resid_post at item"
    }
    assert by_quantity["TE"] == pytest.approx(by_quantity["NDE"] + by_quantity["TNIE"])
    assert by_quantity["TE"] == pytest.approx(
        by_quantity["NDE"] + by_quantity["NIE"] + by_quantity["INT"]
    )
    answer = [row for row in estimated[1] if row["factor"] == "resid_post at answer"]
    accuracy = next(row for row in answer if row["quantity"] == "interchange accuracy")
    assert accuracy["estimate"] == 1.0


def test_pairs_are_arranged_by_id_and_missing_places_stay_nan():
    values = pair_values(pd.DataFrame(rows()), "denoise", "logit_difference")
    assert values.patched.shape == (N_PAIRS, 3)
    column = [cell[3] for cell in values.cells].index("later_items")
    assert np.isnan(values.patched[:, column]).sum() == N_PAIRS // 5
    assert (values.clean > values.corrupt).all()


def test_a_refused_model_gives_empty_tables(tmp_path):
    write_table(tmp_path / "pairs.parquet", "pair_effects", [])
    write_document(tmp_path / "gates.json", "counting_gates", {"status": "refused"})
    estimate_effects(
        "toy", tmp_path / "pairs.parquet", tmp_path / "gates.json", SETTINGS, 0,
        map_path=tmp_path / "map.parquet", estimates_path=tmp_path / "estimates.parquet",
    )  # fmt: skip
    assert read_rows(tmp_path / "map.parquet", "effect_map") == []


def test_schema_and_rows_agree():
    assert set(rows()[0]) == set(table_schema("pair_effects").names)
