"""Statistics of patched pairs against tables whose restoration is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interpflow.config.robustness import RobustnessAnalysis, RobustnessSettings
from interpflow.studies.robustness.patches.effects import _primary, estimate_effects
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.schemas import table_schema

SETTINGS = RobustnessSettings.model_validate({"analysis": {"n_permutations": 499}})
# Restoration by layer (−1: embedding) of the residual stream at each slot, and by heads.
RESTORED = {
    "edited": {-1: 1.0, 0: 0.9, 1: 0.4, 2: 0.0},
    "answer": {-1: 0.0, 0: 0.1, 1: 0.6, 2: 1.0},
}
HEADS = {(0, 0): 0.0, (0, 1): 0.02, (1, 0): 0.5, (1, 1): 0.0}
OPERATORS = ("keyboard", "deletion", "polite", "given:file")
SPLITS = ("discover", "develop", "confirm", "confirm")
SPREAD = 0.15  # of a pair's own restoration, the same at all places


def simulated(
    n_pairs: int = 80, seed: int = 0, per_family: int = 2, heads: bool = True,
    directions: tuple[str, ...] = ("denoise", "noise"), only: str | None = None,
    scale: dict[str, float] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Rows of `robustness_pair_effects`. Damage by noising is what denoising restores.

    scale: of the restoration of an operator, 1 where nothing is said.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    places = [("embed" if layer < 0 else "resid_post", layer, -1, slot, share)
              for slot, shares in RESTORED.items() for layer, share in shares.items()]  # fmt: skip
    if heads:
        places += [("head_out", layer, head, "answer", share)
                   for (layer, head), share in HEADS.items()]  # fmt: skip
    kind = {family: rng.normal() for family in range(n_pairs)}
    for pair in range(n_pairs):
        family = pair // per_family
        operator = OPERATORS[pair % len(OPERATORS)]
        clean, perturbed = 4 + rng.normal(0, 1), -4 + rng.normal(0, 1)
        own = SPREAD * (kind[family] + rng.normal()) / np.sqrt(2)
        for direction in directions:
            base, donor = (perturbed, clean) if direction == "denoise" else (clean, perturbed)
            for component, layer, head, slot, share in places:
                if only is not None and slot != only:
                    continue
                for which in ("real", "random"):
                    part = share * (scale or {}).get(operator, 1.0)
                    part = part + own * (0 < share < 1) if which == "real" else 0.0
                    value = base + part * (donor - base)
                    value += rng.normal(0, 0.1) * (0 < share < 1)
                    rows.append(
                        {
                            "pair_id": f"p{pair:04d}", "family_id": f"f{family:04d}",
                            "split": SPLITS[family % 4], "operator": operator,
                            "alignment": "edited", "direction": direction, "donor": which,
                            "component": component, "layer": layer, "head": head, "slot": slot,
                            "ran": True, "logit_difference": value,
                            "base_logit_difference": base, "donor_logit_difference": donor,
                            "kl": 3.0 * (1 - part), "base_kl": 3.0, "donor_kl": 0.0,
                            # A third token is 1 nat behind the right one in the clean run.
                            "margin": value - 3.0, "base_margin": base - 3.0,
                            "donor_margin": donor - 3.0,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def estimate(table: pd.DataFrame, here: Path, **gates: Any) -> dict[str, Any]:
    write_table(here / "effects.parquet", "robustness_pair_effects", table.to_dict("records"))
    document = {"status": "run", "reason": "", **gates}
    write_document(here / "gates.json", "robustness_gates", document)
    estimate_effects(
        "toy", SETTINGS, 0, effects_path=here / "effects.parquet", gates_path=here / "gates.json",
        map_path=here / "map.parquet", estimates_path=here / "estimates.parquet",
        document_path=here / "effects.json",
    )  # fmt: skip
    return {
        "map": read_rows(here / "map.parquet", "effect_map"),
        "estimates": read_rows(here / "estimates.parquet", "estimates"),
        "document": read_document(here / "effects.json", "robustness_effects"),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return estimate(simulated(), tmp_path_factory.mktemp("effects"))


def test_simulated_rows_have_the_columns_of_the_table() -> None:
    assert set(simulated(4).columns) == set(table_schema("robustness_pair_effects").names)


def test_planted_restoration_and_damage_are_recovered(found: dict[str, Any]) -> None:
    seen = set()
    for row in found["map"]:
        if row["quantity"] not in ("recovery", "damage", "KL recovery"):
            continue
        if row["component"] == "head_out":
            share = HEADS[row["layer"], row["head"]]
        else:
            share = RESTORED[row["slot"]][row["layer"]]
        assert row["estimate"] == pytest.approx(share, abs=0.06)
        if row["quantity"] != "KL recovery":
            assert row["ci_low"] - 1e-9 <= row["estimate"] <= row["ci_high"] + 1e-9
        assert (row["n_units"], row["n_clusters"]) == (80, 40)
        assert row["metric"] == ("kl" if row["quantity"] == "KL recovery" else "logit_difference")
        seen.add((row["direction"], row["quantity"]))
    assert seen == {("denoise", "recovery"), ("noise", "damage"), ("denoise", "KL recovery")}


def test_only_places_that_restore_differ_from_random_directions(found: dict[str, Any]) -> None:
    for row in found["map"]:
        if "contrast" not in row["quantity"]:
            continue
        shares = HEADS if row["component"] == "head_out" else RESTORED[row["slot"]]
        key = (row["layer"], row["head"]) if row["component"] == "head_out" else row["layer"]
        p = row["p_adjusted"]
        if shares[key] >= 0.1:
            assert p < 0.05
        elif shares[key] == 0:
            assert p > 0.05
            assert "DEGENERATE_VARIANCE" in row["flags"]


def test_heads_are_ranked_and_the_layer_is_chosen(found: dict[str, Any]) -> None:
    document = found["document"]
    assert [(row["layer"], row["head"]) for row in document["heads"]][:1] == [(1, 0)]
    primary = document["primary"]
    assert primary["layer"] == 0
    assert primary["estimate"] == pytest.approx(0.9, abs=0.08)
    assert primary["n_units"] == 40
    assert primary["n_clusters"] == 20
    assert primary["p_value"] < 0.05
    # One of four confirmatory questions: what is claimed of it holds whatever the others come to.
    assert primary["p_adjusted"] == pytest.approx(4 * primary["p_value"])
    assert primary["family"] == "confirmatory"
    assert "after layer 0" in document["sentence"]
    chosen = [row for row in found["estimates"]
              if row["factor"] == "restoration at the chosen layer"]  # fmt: skip
    assert [row["estimate"] for row in chosen] == [primary["estimate"]]


def test_right_token_wins_only_where_it_beats_all_others(found: dict[str, Any]) -> None:
    share = {(row["factor"], row["level"]): row["estimate"] for row in found["estimates"]
             if row["quantity"] == "right token wins again"}  # fmt: skip
    assert share["residual at edited", "layer 2"] == 0
    # The logit difference is above 0 almost everywhere here, the margin is not.
    assert 0 < share["residual at answer", "layer 1"] < 0.2
    assert share["residual at edited", "layer -1"] > 0.7


def test_corners_add_up(found: dict[str, Any]) -> None:
    corner = {(row["factor"], row["level"], row["quantity"]): row for row in found["estimates"]}
    for slot, shares in RESTORED.items():
        for layer, share in shares.items():

            def at(quantity: str, slot: str = slot, layer: int = layer) -> float:
                return corner[f"residual at {slot}", f"layer {layer}", quantity]["estimate"]

            assert at("TE") == pytest.approx(8, abs=0.6)
            assert at("TE") == pytest.approx(at("NDE") + at("TNIE"))
            assert at("TE") == pytest.approx(at("NDE") + at("NIE") + at("INT"))
            assert at("proportion mediated (pure)") == pytest.approx(share, abs=0.06)
    assert corner["all", "all", "TE"]["estimate"] == pytest.approx(8, abs=0.6)
    assert corner["all", "all", "Fieller g (gate: below 1)"]["estimate"] < 1


def test_restoration_by_operator_and_family(tmp_path: Path) -> None:
    scale = {"polite": 0.5, "given:file": 0.0}
    rows = [row for row in estimate(simulated(scale=scale), tmp_path)["estimates"]
            if row["analysis"] == "mediation by operator"]  # fmt: skip
    after = "restoration by the edited words after layer 0"
    by = {(row["factor"], row["level"]): row for row in rows if row["quantity"] == after}
    expected = {
        ("operator", "keyboard"): 0.9, ("operator", "deletion"): 0.9,
        ("operator", "polite"): 0.45, ("operator", "given:file"): 0.0,
        ("family", "typo"): 0.9, ("family", "style"): 0.45, ("family", "given"): 0.0,
    }  # fmt: skip
    assert set(by) == set(expected)
    for key, share in expected.items():
        assert by[key]["estimate"] == pytest.approx(share, abs=0.12), key
        assert by[key]["n_units"] == (40 if key == ("family", "typo") else 20)
    assert {row["quantity"] for row in rows} >= {"restoration by the edited words at the embedding"}


def test_the_confirmed_restoration_covers_the_truth() -> None:
    settings = RobustnessAnalysis(n_permutations=99)
    hits = chosen = 0
    n = 250
    for seed in range(n):
        table = simulated(48, seed, heads=False, directions=("denoise",), only="edited")
        primary = _primary("toy", table, settings, seed)
        assert primary is not None
        truth = RESTORED["edited"][primary["layer"]]
        hits += primary["ci_low"] <= truth <= primary["ci_high"]
        chosen += primary["layer"] == 0
    assert chosen == n
    # 95 % nominal; four standard errors of a share of 250 are 5.5 points.
    assert 0.895 <= hits / n <= 0.995


def test_a_place_that_few_pairs_have_is_flagged_and_ranks_no_head(tmp_path: Path) -> None:
    table = simulated()
    rare = (table["component"] == "head_out") & (table["layer"] == 1) & (table["head"] == 0)
    families = sorted(table["family_id"].unique())[:5]
    found = estimate(table[~rare | table["family_id"].isin(families)], tmp_path)
    for row in found["map"]:
        few = row["component"] == "head_out" and (row["layer"], row["head"]) == (1, 0)
        assert ("TOO_FEW_CLUSTERS" in row["flags"]) == few
        assert row["n_units"] == (10 if few else 80)
    assert (1, 0) not in [(row["layer"], row["head"]) for row in found["document"]["heads"]]


def test_pairs_without_a_place_are_counted(tmp_path: Path) -> None:
    table = simulated(40)
    gone = table["pair_id"].isin(sorted(set(table["pair_id"]))[:7]) & (table["slot"] == "edited")
    rows = estimate(pd.DataFrame(table[~gone]), tmp_path)["map"]
    tested = [row for row in rows if "contrast" in row["quantity"]]
    assert {row["n_dropped"] for row in tested if row["slot"] == "edited"} == {7}
    assert {row["n_dropped"] for row in tested if row["slot"] == "answer"} == {0}


def test_few_families_confirm_nothing(tmp_path: Path) -> None:
    # 10 families of two: 5 to explore, 5 to confirm.
    found = estimate(simulated(20), tmp_path)["document"]
    assert "TOO_FEW_CLUSTERS" in found["primary"]["flags"]
    assert "too few for a claim" in found["sentence"]
    # 8 families: 4 and 4 are the fewest; without the confirmation split there is no estimate.
    table = simulated()
    none = estimate(table[table["split"] != "confirm"], tmp_path)["document"]
    assert none["primary"] is None
    assert "too few" in none["sentence"]


def test_no_total_effect_leaves_ratios_undefined(tmp_path: Path) -> None:
    table = simulated(40)
    signs = np.where(table["pair_id"].str[1:].astype(int) // 2 % 2, 1.0, -1.0)
    for column in ("logit_difference", "base_logit_difference", "donor_logit_difference"):
        table[column] *= signs
    found = estimate(table, tmp_path)
    ratios = [row for row in found["map"] if row["quantity"] == "recovery"]
    assert all(row["estimate"] is None for row in ratios)
    assert all("UNDEFINED_RATIO" in row["flags"] for row in ratios)
    gate = next(row for row in found["estimates"] if row["quantity"].startswith("Fieller"))
    assert gate["flags"] == "GATE_FAILED"
    assert found["document"]["primary"] is None


def test_patterns_have_ratios_of_their_own_pairs(tmp_path: Path) -> None:
    table = simulated(40)
    exact = table[(table["component"] == "head_out") & (table["donor"] == "real")
                  & table["family_id"].isin(sorted(table["family_id"].unique())[:10])]  # fmt: skip
    both = pd.concat([table, exact.assign(component="pattern", alignment="exact")])
    found = estimate(both, tmp_path)
    rows = [row for row in found["map"] if row["component"] == "pattern"]
    assert {row["quantity"] for row in rows} == {"recovery", "damage", "KL recovery"}
    assert {row["n_units"] for row in rows} == {20}
    assert {row["n_units"] for row in found["map"] if row["component"] == "head_out"} == {40}


def test_parts_alone_have_no_residual_stream_to_tell_of(tmp_path: Path) -> None:
    table = simulated(40)
    found = estimate(table[table["component"] == "head_out"], tmp_path)
    assert found["document"]["primary"] is None
    assert found["document"]["curves"] == []
    assert {row["factor"] for row in found["estimates"]} == {"all"}


def test_a_refused_model_gives_empty_tables_and_says_why(tmp_path: Path) -> None:
    empty = pd.DataFrame(columns=table_schema("robustness_pair_effects").names)
    found = estimate(empty, tmp_path, status="refused", reason="nothing is lost")
    assert found["map"] == found["estimates"] == []
    assert found["document"]["status"] == "refused"
    assert "nothing is lost" in found["document"]["sentence"]
