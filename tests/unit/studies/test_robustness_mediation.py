"""Clean states in damaged prompts: a planted head, pairs without a difference, gates, a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import planted_damage as planted
import pyarrow as pa
import pytest
import torch

from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessMediation, RobustnessSettings
from interpflow.engine import load
from interpflow.studies.robustness.answers.inference import run_inference
from interpflow.studies.robustness.data.cells import Cell
from interpflow.studies.robustness.data.generation import generate_examples
from interpflow.studies.robustness.patches import mediation, patching
from interpflow.studies.robustness.patches.effects import estimate_effects
from interpflow.studies.robustness.patches.mediation import (
    confirmed_pairs,
    patch_pairs,
    run_mediation,
    token_rows,
)
from interpflow.studies.robustness.patches.pairs import SLOTS, DamagedPair, damaged_pairs
from interpflow.studies.robustness.patches.patching import Patching
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, read_table, write_table
from interpflow.tasks.perturbations.text import PerturbedText, rebuilt

torch.set_num_threads(1)
ALL = RobustnessMediation()
RESIDUAL = RobustnessMediation(components=["resid_post"], heads=False, patterns=False)
SETTINGS = RobustnessSettings.model_validate(
    {"analysis": {"n_permutations": 499}, "mediation": {"n_pairs": 48}}
)
TOKENS = planted.tokenizer()
ROWS = planted.examples(planted.items(24), ["keyboard", "deletion"])


def prepared(module: Any, pairs: list[DamagedPair]) -> Patching:
    return Patching(load(module, tokenizer=TOKENS), pairs, 4096, 0)


def patched(patching_: Patching, settings: RobustnessMediation = ALL) -> pd.DataFrame:
    return pa.concat_tables(patch_pairs(patching_, settings)).to_pandas()


@pytest.fixture(scope="module")
def module() -> Any:
    return planted.planted_model(TOKENS)


@pytest.fixture(scope="module")
def pairs(module: Any) -> list[DamagedPair]:
    found, _ = damaged_pairs(ROWS, planted.answers_of(module, TOKENS, ROWS), TOKENS, "auto", 48)
    return found


@pytest.fixture(scope="module")
def swept(module: Any, pairs: list[DamagedPair]) -> pd.DataFrame:
    return patched(prepared(module, pairs))


def estimated(table: pd.DataFrame, here: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    write_table(here / "effects.parquet", "robustness_pair_effects", table.to_dict("records"))
    write_document(here / "gates.json", "robustness_gates", {"status": "run", "reason": ""})
    estimate_effects(
        "planted", SETTINGS, 0, effects_path=here / "effects.parquet",
        gates_path=here / "gates.json", map_path=here / "map.parquet",
        estimates_path=here / "estimates.parquet", document_path=here / "effects.json",
    )  # fmt: skip
    return (
        read_rows(here / "map.parquet", "effect_map"),
        read_document(here / "effects.json", "robustness_effects"),
    )


def test_the_planted_head_is_ranked_first_and_restores_the_answer(
    swept: pd.DataFrame, tmp_path: Path
) -> None:
    places, document = estimated(swept, tmp_path)
    top, second = document["heads"][:2]
    assert (top["layer"], top["head"], top["slot"]) == (*planted.PLANTED, "answer")
    assert top["p_adjusted"] < 0.05
    assert abs(second["estimate"]) < 0.05 * top["estimate"]
    for quantity in ("recovery", "damage"):
        heads = {(row["layer"], row["head"], row["slot"]): row["estimate"] for row in places
                 if row["component"] == "head_out" and row["quantity"] == quantity}  # fmt: skip
        assert heads.pop((*planted.PLANTED, "answer")) == pytest.approx(1, abs=0.05)
        assert len(heads) == 3 * 9 - 1
        assert all(abs(value) < 0.05 for value in heads.values()), quantity
    # The head reads the verb's state in its layer: before it the words carry all, then nothing.
    curves = {(row["slot"], row["layer"]): row["estimate"] for row in document["curves"]}
    for layer in (-1, 0):
        assert curves["edited", layer] == pytest.approx(1, abs=0.05)
        assert curves["answer", layer] == pytest.approx(0, abs=0.05)
    for layer in (1, 2):
        assert curves["edited", layer] == pytest.approx(0, abs=0.05)
        assert curves["answer", layer] == pytest.approx(1, abs=0.05)
    assert document["primary"]["layer"] == 0
    assert document["primary"]["p_value"] < 0.05
    kl = {(row["component"], row["layer"], row["slot"]): row["estimate"] for row in places
          if row["quantity"] == "KL recovery" and row["head"] == -1}  # fmt: skip
    assert kl["resid_post", 0, "edited"] > 0.95
    assert kl["resid_post", 1, "edited"] < 0.05


def test_without_its_output_nothing_is_damaged_and_nothing_restores(
    pairs: list[DamagedPair],
) -> None:
    disconnected = planted.planted_model(TOKENS, connected=False)
    answers = planted.answers_of(disconnected, TOKENS, ROWS)
    found, left_out = damaged_pairs(ROWS, answers, TOKENS, "auto", 48)
    assert found == []
    assert left_out == {"clean prompt answered wrong": 48}
    table = patched(prepared(disconnected, pairs))
    layer, head = planted.PLANTED
    real = table[(table["donor"] == "real") & (table["component"] == "head_out")]
    real = real[(real["layer"] == layer) & (real["head"] == head)]
    assert len(real)
    np.testing.assert_allclose(
        real["logit_difference"], real["base_logit_difference"], rtol=0, atol=1e-6
    )


def test_every_place_is_there_with_both_directions_and_donors(
    swept: pd.DataFrame, pairs: list[DamagedPair]
) -> None:
    assert swept["pair_id"].nunique() == len(pairs) == 48
    assert set(swept["direction"]) == {"denoise", "noise"}
    assert set(swept["donor"]) == {"real", "random"}
    slots = swept.groupby("component")["slot"].unique().map(set)
    assert slots["resid_post"] == slots["embed"] == set(SLOTS)
    for part in ("attn_out", "mlp_out", "head_out"):
        assert slots[part] == {"edited", "later", "answer"}
    values = swept[["logit_difference", "kl", "margin"]]
    assert np.isfinite(values).all(axis=None)
    denoised = swept[swept["direction"] == "denoise"]
    assert (denoised["base_margin"] < 0).all(), "the right token does not win in the damaged run"
    assert (denoised["donor_margin"] > 0).all()
    last = denoised[(denoised["component"] == "resid_post") & (denoised["slot"] == "answer")
                    & (denoised["layer"] == planted.N_LAYERS - 1)]  # fmt: skip
    last = last[last["donor"] == "real"]
    np.testing.assert_allclose(last["kl"], 0, atol=1e-6)
    np.testing.assert_allclose(last["margin"], last["donor_margin"], rtol=1e-5)


def null_pair(pair: DamagedPair) -> DamagedPair:
    """The same prompt again, as if it were the perturbed one."""
    same = tuple(range(len(pair.clean.ids)))
    return replace(pair, pair_id=f"null {pair.pair_id}", perturbed=pair.clean, donor_of=same,
                   span_donor_of=same)  # fmt: skip


def test_the_same_prompt_again_gives_zero_everywhere(module: Any, pairs: list[DamagedPair]) -> None:
    nulls = [null_pair(pair) for pair in pairs[:8]]
    table = patched(prepared(module, [*pairs[:4], *nulls]))
    swept_sites = (table["component"] != "pattern") | (table["head"] >= 0)
    same = table[table["pair_id"].str.startswith("null") & swept_sites]
    assert set(same["component"]) > {"resid_post", "head_out", "pattern"}
    assert not same["ran"].any()
    for metric in ("logit_difference", "kl", "margin"):
        np.testing.assert_array_equal(same[metric], same[f"base_{metric}"])
        np.testing.assert_allclose(same[metric], same[f"donor_{metric}"], atol=1e-5)
    others = table[~table["pair_id"].str.startswith("null")]
    assert (others["logit_difference"] != others["base_logit_difference"]).any()


def test_all_pairs_the_same_are_refused_by_the_gates(module: Any, pairs: list[DamagedPair]) -> None:
    with pytest.raises(RuntimeError, match="pairs_differ"):
        patch_pairs(prepared(module, [null_pair(pair) for pair in pairs[:3]]), RESIDUAL)


def exact_pairs(module: Any) -> list[DamagedPair]:
    """The verb is exchanged for a known word that is none: as many tokens."""
    rows = {}
    for item in planted.items(8):
        start, end = item.question.main[0]
        text = item.question.text
        new = rebuilt(text, [("homophone", start, end, "near")], "homophone")
        for cell, made in ((Cell("clean", "clean"), PerturbedText(text, "clean")),
                           (Cell("typo", "homophone"), new)):  # fmt: skip
            row = planted.example(item, cell, made, planted.FRAME)
            rows[row["example_id"]] = row
    answers = planted.answers_of(module, TOKENS, rows)
    return damaged_pairs(rows, answers, TOKENS, "auto", 100)[0]


def test_pairs_of_equal_length_are_restored_wholly_and_their_patterns_are_patched(
    module: Any,
) -> None:
    found = exact_pairs(module)
    assert {pair.alignment for pair in found} == {"exact"}
    prepared_pairs = prepared(module, found)
    table = patched(prepared_pairs)
    whole = table[(table["component"] == "embed") & (table["slot"] == "edited_span")]
    whole = whole[whole["donor"] == "real"]
    np.testing.assert_allclose(whole["logit_difference"], whole["donor_logit_difference"],
                               rtol=1e-5)  # fmt: skip
    assert any(row.name == "embedding_swap[noise]" for row in prepared_pairs.gates)
    pattern = table[(table["component"] == "pattern") & (table["head"] >= 0)]
    assert set(pattern["slot"]) == {"answer"}
    assert pattern["pair_id"].nunique() == 8
    # All heads of a layer together, where the planted one is the only one that reads.
    layers = pattern[pattern["head"] == -1]
    together = layers[layers["layer"] == planted.PLANTED[0]].set_index(["pair_id", "direction"])
    pattern = pattern[pattern["head"] >= 0]
    one = pattern[(pattern["layer"] == planted.PLANTED[0])
                  & (pattern["head"] == planted.PLANTED[1])]  # fmt: skip
    one = one.set_index(["pair_id", "direction"]).loc[together.index]
    np.testing.assert_allclose(
        together["logit_difference"], one["logit_difference"],
        atol=0.05 * float(one["donor_logit_difference"].abs().max()),
    )  # fmt: skip
    # A pattern alone finds no verb to read in the damaged prompt; in the clean one, looking
    # elsewhere loses it.
    planted_head = (pattern["layer"] == planted.PLANTED[0]) & (
        pattern["head"] == planted.PLANTED[1]
    )
    effect = pattern["logit_difference"] - pattern["base_logit_difference"]
    total = (pattern["donor_logit_difference"] - pattern["base_logit_difference"]).abs()
    noised = pattern["direction"] == "noise"
    assert (effect[planted_head & noised] < -0.5 * total[planted_head & noised]).all()
    assert (effect[~planted_head].abs() < 0.05 * total[~planted_head]).all()


def test_a_prompt_that_ends_in_its_edit_passes_the_gates(module: Any) -> None:
    rows = {}
    for item in planted.items(8, last="near old trees."):
        text = item.question.text
        start, _ = item.question.main[0]
        edits = [("keyboard", start, start + 1, "x"), ("punctuation", len(text) - 1, len(text), "")]
        new = rebuilt(text, edits, "keyboard")
        for cell, made in ((Cell("clean", "clean"), PerturbedText(text, "clean")),
                           (Cell("typo", "keyboard"), new)):  # fmt: skip
            row = planted.example(item, cell, made, ("", ""))
            rows[row["example_id"]] = row
    answers = planted.answers_of(module, TOKENS, rows)
    found = damaged_pairs(rows, answers, TOKENS, "auto", 100)[0]
    assert len(found) == 8
    checked = prepared(module, found)
    patch_pairs(checked, RESIDUAL)
    assert {"answer_swap[denoise]", "unread_state[noise]"} <= {row.name for row in checked.gates}


def drop_the_patch(*args: Any, **kwargs: Any) -> Any:
    result = REAL_SWEEP(*args, **kwargs)
    base = {name: np.broadcast_to(values[:, None, None], result.ran.shape).copy()
            for name, values in result.base.items()}  # fmt: skip
    return replace(result, values=base)


def shift_the_alignment(*args: Any, **kwargs: Any) -> Any:
    if kwargs["donor_positions"] is not None:
        kwargs["donor_positions"] = [[max(0, place - 1) if place >= 0 else -1 for place in table]
                                     for table in kwargs["donor_positions"]]  # fmt: skip
    return REAL_SWEEP(*args, **kwargs)


def patch_one_place_on(*args: Any, **kwargs: Any) -> Any:
    """What is meant for the edited words goes to the answer."""
    given = list(args)
    given[4] = [[groups[SLOTS.index("answer")], *groups[1:]] for groups in given[4]]
    return REAL_SWEEP(*given, **kwargs)


REAL_SWEEP = patching.sweep_sites


@pytest.mark.parametrize(
    ("broken", "gate"),
    [
        (drop_the_patch, "answer_swap"),
        (shift_the_alignment, "answer_swap"),
        (patch_one_place_on, "unread_state"),
    ],
)
def test_broken_patches_fail_the_job(
    broken: Any, gate: str, module: Any, pairs: list[DamagedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_pairs(prepared(module, pairs[:8]), RESIDUAL)
    monkeypatch.setattr(patching, "sweep_sites", broken)
    with pytest.raises(RuntimeError, match=gate):
        patch_pairs(prepared(module, pairs[:8]), RESIDUAL)


def test_tokens_of_shown_pairs_are_patched_one_by_one(
    module: Any, pairs: list[DamagedPair]
) -> None:
    rows = token_rows(prepared(module, pairs))
    shown = pairs[0]
    mine = [row for row in rows if row["pair_id"] == shown.pair_id and row["layer"] == 0]
    assert "".join(row["token"] for row in mine) == ROWS[shown.row["example_id"]]["prompt"]
    assert [row["role"] for row in mine].count("edited") == len(shown.perturbed.edited_span[0])
    for row in mine:
        change = row["donor_logit_difference"] - row["base_logit_difference"]
        if row["role"] == "unaligned":
            assert row["logit_difference"] is None
            continue
        restored = (row["logit_difference"] - row["base_logit_difference"]) / change
        # The head finds the verb's state at any token of the misspelt word.
        assert restored == pytest.approx(float(row["role"] == "edited"), abs=0.05)
    assert len({row["pair_id"] for row in rows}) == 3


def test_pairs_that_the_runs_do_not_confirm_are_dropped_and_end_tokens_are_found(
    module: Any, pairs: list[DamagedPair]
) -> None:
    model = load(module, tokenizer=TOKENS)
    assert confirmed_pairs(model, pairs, [1], 4096) == pairs
    other = replace(pairs[0], clean_token=pairs[0].perturbed_token + 1)
    assert confirmed_pairs(model, [other, pairs[1]], [1], 4096) == [pairs[1]]
    # The answer ended with one of two end tokens, and the wrong one was taken for it.
    ends = [pairs[0].perturbed_token, 1]
    guessed = replace(pairs[0], perturbed_token=1)
    assert confirmed_pairs(model, [guessed], ends, 4096) == [pairs[0]]


def run(here: Path, settings: RobustnessSettings = SETTINGS, refusal: str = "") -> dict[str, Any]:
    write_document(here / "benchmark.json", "robustness_benchmark", {"mediation_refused": refusal})
    run_mediation(
        "m", ModelSettings(reference="word_problems"), settings, 0,
        examples_path=here / "examples.parquet", answers_path=here / "answers.parquet",
        benchmark_path=here / "benchmark.json", pairs_path=here / "pairs.parquet",
        effects_path=here / "effects.parquet", tokens_path=here / "tokens.parquet",
        gates_path=here / "gates.json",
    )  # fmt: skip
    return read_document(here / "gates.json", "robustness_gates")


def test_a_refused_model_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediation, "load_named", None)
    document = run(tmp_path, refusal="nothing is lost")
    assert (document["status"], document["reason"]) == ("refused", "nothing is lost")
    for name, table in (("pairs", "robustness_pairs"), ("effects", "robustness_pair_effects"),
                        ("tokens", "robustness_token_effects")):  # fmt: skip
        assert read_rows(tmp_path / f"{name}.parquet", table) == []


REFERENCE = RobustnessSettings.model_validate(
    {
        "data": {"n_items": 48},
        "perturbations": {
            "operators": ["keyboard", "transposition"], "placements": ["main"],
            "dose": {"operators": []},
        },
        "inference": {"activations": {"max_items": 8, "positions": "answer", "patterns": False}},
        "mediation": {"n_pairs": 16, "components": ["resid_post"], "heads": False},
        "analysis": {"n_permutations": 499},
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study on the reference model up to its answers; every variant accepted."""
    here = tmp_path_factory.mktemp("reference")
    generate_examples(REFERENCE, 0, examples_path=here / "examples.parquet",
                      table_path=here / "not_made.parquet")  # fmt: skip
    rows = read_rows(here / "examples.parquet", "robustness_examples")
    verdict = {"accepted": True, "reason": "", "similarity": None, "verdict": None, "judges": [],
               "votes": []}  # fmt: skip
    columns = ("example_id", "base_id", "family", "operator", "placement", "n_edits", "rate",
               "strength", "variant")  # fmt: skip
    validated = [{column: row[column] for column in columns} | verdict for row in rows]
    write_table(here / "validation.parquet", "robustness_validation", validated)
    run_inference(
        "m", ModelSettings(reference="word_problems"), REFERENCE, 0,
        examples_path=here / "examples.parquet", validation_path=here / "validation.parquet",
        answers_path=here / "answers.parquet", samples_path=here / "samples.parquet",
        activations_path=here / "activations",
    )  # fmt: skip
    return here


def test_the_reference_model_loses_its_answer_at_the_edited_words(reference: Path) -> None:
    document = run(reference, REFERENCE)
    assert document["status"] == "run"
    assert all(row["passed"] for row in document["gates"]["rows"])
    assert document["n_pairs"] == 16
    assert document["audit"]["n_cells"] > 0
    table = read_table(reference / "effects.parquet", "robustness_pair_effects").to_pandas()
    _, found = estimated(table, reference)
    curve = {slot: {row["layer"]: row["estimate"] for row in found["curves"] if row["slot"] == slot}
             for slot in SLOTS}  # fmt: skip
    layers = sorted(curve["edited"])
    edited, answer = ([curve[slot][k] for k in layers] for slot in ("edited", "answer"))
    assert edited[0] > 0.8
    assert edited[0] > edited[len(layers) // 2] > edited[-1] == 0
    assert answer[0] == 0
    assert answer[-1] == pytest.approx(1, abs=1e-5)
    assert len(read_rows(reference / "pairs.parquet", "robustness_pairs")) == 16
    assert len(read_rows(reference / "tokens.parquet", "robustness_token_effects")) > 0


def test_too_few_damaged_prompts_are_refused_with_their_number(
    reference: Path, tmp_path: Path
) -> None:
    (tmp_path / "examples.parquet").write_bytes((reference / "examples.parquet").read_bytes())
    rows = read_rows(reference / "answers.parquet", "robustness_answers")
    kept = sorted({row["base_id"] for row in rows})[:3]
    few = [row for row in rows if row["base_id"] in kept]
    write_table(tmp_path / "answers.parquet", "robustness_answers", few)
    document = run(tmp_path, REFERENCE)
    assert document["status"] == "refused"
    assert "8 independent ones are needed" in document["reason"]
    assert document["left_out"]
    assert read_rows(tmp_path / "effects.parquet", "robustness_pair_effects") == []
