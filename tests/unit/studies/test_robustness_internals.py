"""What changes inside: planted heads, layers and neurons come first, nothing moves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planted_internals as made
import pytest

from interpflow.activations import open_store
from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.studies.robustness.inside.aligned_words import aligned_places, untouched_words
from interpflow.studies.robustness.inside.attention_shifts import measure_attention
from interpflow.studies.robustness.inside.internals import run_internals
from interpflow.studies.robustness.inside.stored_prompts import stored_prompts
from interpflow.tables.parquet import read_rows, read_table, write_table

TABLES = {
    "shifts_path": "robustness_shifts",
    "attention_path": "robustness_attention",
    "neurons_path": "robustness_neurons",
    "map_path": "effect_map",
    "estimates_path": "estimates",
    "probes_path": "probes",
}
SETTINGS = RobustnessSettings.model_validate(
    {"analysis": {"n_permutations": 999, "n_resamples": 99}}
)


def run(directory: Path, model: Path, planted: made.Planted) -> dict[str, list[dict]]:
    paths: Any = made.write(directory, planted)
    outputs: Any = {key: directory / f"{key}.parquet" for key in TABLES}
    run_internals("m", ModelSettings(local=str(model)), SETTINGS, 0, **paths, **outputs)
    return {name: read_rows(outputs[key], name) for key, name in TABLES.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_model):
    planted = made.Planted(lift=3.0, neuron=2.0)
    return run(tmp_path_factory.mktemp("internals"), tiny_model, planted)


def test_the_null_operator_is_exactly_zero_everywhere(found) -> None:
    null = [row for row in found["robustness_shifts"] if row["operator"] == "null"]
    assert len(null) == 30 * 2 * 3  # two places (no word was edited) at three sites
    assert {row["cosine_distance"] for row in null} == {0.0}
    assert {row["relative_norm"] for row in null} == {0.0}
    assert {row["kl"] for row in null} == {0.0, None}
    moved = [row for row in found["robustness_shifts"] if row["operator"] == "keyboard"
             and row["place"] == "answer" and row["component"] == "resid_post"]  # fmt: skip
    assert min(row["cosine_distance"] for row in moved) > 1e-3
    assert min(row["kl"] for row in moved) > 0


def test_a_null_operator_that_moves_something_stops_the_stage(tmp_path, tiny_model) -> None:
    with pytest.raises(RuntimeError, match="null operator"):
        run(tmp_path, tiny_model, made.Planted(n_items=12, broken_null=True))


def test_the_planted_layer_is_chosen_and_measured_on_confirm(found) -> None:
    cells = [row for row in found["effect_map"] if row["metric"] == "cosine_distance"
             and row["quantity"] == "shift: typo − control" and row["component"] == "resid_post"
             and row["slot"] == "answer"]  # fmt: skip
    assert [row["family"][-9:] for row in cells] == ["(explore)"] * 2 + ["(confirm)"] * 2
    confirm = {row["layer"]: row for row in cells if row["family"].endswith("(confirm)")}
    assert confirm[1]["p_adjusted"] < 0.05 < confirm[0]["p_adjusted"]
    assert confirm[1]["ci_low"] > 0
    assert confirm[1]["n_units"] == 15
    chosen = [row for row in found["estimates"] if row["factor"] == "cosine_distance 1"]
    assert {row["level"] for row in chosen} <= {"resid_post layer 1 at answer",
                                                "resid_post layer 1 at unedited"}  # fmt: skip


def test_the_planted_head_is_ranked_first(found) -> None:
    heads = [row for row in found["effect_map"] if row["metric"] == "log_did"
             and row["family"].endswith("(confirm)") and "typo" in row["quantity"]]  # fmt: skip
    assert len(heads) == 2 * 3 * 3  # layers, heads, queries
    best = min(heads, key=lambda row: (row["p_adjusted"] is None, row["p_adjusted"]))
    assert (best["layer"], best["head"], best["slot"]) == (*made.PLANTED_HEAD, "answer")
    assert best["p_adjusted"] < 0.01
    # Each factor is 1 + 2u with u uniform on (.5, 1.5).
    assert best["estimate"] == pytest.approx(1.07, abs=0.1)
    others = [row for row in heads if row is not best]
    assert all(abs(row["estimate"] or 0) < 0.2 for row in others)
    first = next(row for row in found["estimates"] if row["factor"] == "log_did 1")
    assert first["level"] == "pattern layer 1 head 2 at answer"


def test_without_the_planted_head_no_head_stands_out(tmp_path, tiny_model) -> None:
    tables = run(tmp_path, tiny_model, made.Planted(n_items=16))
    heads = [row for row in tables["effect_map"] if row["metric"] == "log_did"]
    assert heads
    assert all(row["estimate"] in (None, 0.0) for row in heads)
    lifts = {row["edited_lift"] for row in tables["robustness_attention"]}
    assert lifts == {1.0}  # constant attention: exactly the uniform causal null
    neurons = [row for row in tables["robustness_neurons"] if row["place"] == "answer"]
    assert all(row["estimate"] == 0 and row["p_value"] is None for row in neurons)


def test_the_planted_neuron_is_the_only_one_at_the_answer(found) -> None:
    neurons = [row for row in found["robustness_neurons"] if row["place"] == "answer"]
    assert len(neurons) == 2 * made.N_LAYERS * made.N_NEURONS  # all typos together, and keyboard
    moved = [(row["layer"], row["neuron"]) for row in neurons if (row["p_adjusted"] or 1) < 0.05]
    assert set(moved) == {made.PLANTED_NEURON}
    assert all(row["estimate"] == pytest.approx(2, abs=0.3) for row in neurons
               if (row["layer"], row["neuron"]) == made.PLANTED_NEURON)  # fmt: skip


def test_probes_read_what_is_there(found) -> None:
    probes = {(row["quantity"], row["component"], row["layer"]): row for row in found["probes"]}
    embed = probes["AUROC: was there a typo, at answer", "embed", -1]
    assert embed["estimate"] == 0.5  # one token for all prompts of an item
    assert all(row["family"].endswith("folds by template") for row in found["probes"])
    assert {row["quantity"].split(":")[1].split(",")[0].strip() for row in found["probes"]} == {
        "was there a typo", "will the answer be wrong"}  # fmt: skip
    operators = [row for row in found["estimates"] if "other operators" in row["factor"]]
    assert {row["level"].split(",")[0] for row in operators} >= {"keyboard", "deletion", "control"}
    beyond = [
        row for row in found["estimates"] if row["quantity"] == "AUROC beyond operator and dose"
    ]
    assert beyond


def test_observational_estimates_say_so(found) -> None:
    rows = [row for row in found["estimates"] if "observational" in row["analysis"]]
    assert rows
    assert all("OBSERVATIONAL" in row["flags"] or row["estimate"] is None for row in rows)
    assert all(row["family"] for row in found["estimates"])
    total = next(row for row in rows if row["quantity"] == "total effect")
    assert total["estimate"] == pytest.approx(-16 / 30, abs=1e-9)


def prompts_of(directory: Path, planted: made.Planted):
    paths = made.write(directory, planted)
    store = open_store(paths["activations_path"])
    return store, stored_prompts(
        store,
        read_rows(paths["examples_path"], "robustness_examples"),
        read_rows(paths["answers_path"], "robustness_answers"),
    )


def test_words_are_aligned_whatever_their_number_of_tokens(tmp_path) -> None:
    store, prompts = prompts_of(tmp_path, made.Planted(n_items=8))
    ends = store.index["char_end"].to_pylist()
    for pairs in aligned_places(prompts):
        assert len(pairs.variants)
        for i, changed, clean in zip(pairs.variants, pairs.changed, pairs.clean):
            row, base = prompts.examples[i], prompts.cleans[i]
            if pairs.place == "edited":
                assert ends[changed] in row["word_ends"]
                assert ends[clean] in base_ends(row)
            else:
                assert last_word(row["prompt"], ends[changed]) == last_word(
                    base["prompt"], ends[clean]
                )
    unedited = next(pairs for pairs in aligned_places(prompts) if pairs.place == "unedited")
    counts = dict(zip(*np.unique(prompts.operators[unedited.variants], return_counts=True)))
    n = len(made.WORDS)
    # keyboard edits words 2 and 4, deletion 7 and 9; what stands before the first is left out.
    assert counts == {"null": 8 * n, "polite": 8 * n, "keyboard": 8 * (n - 4),
                      "control": 8 * (n - 5), "deletion": 8 * (n - 9)}  # fmt: skip


def base_ends(row: dict) -> list[int]:
    return row["clean_word_ends"]


def last_word(prompt: str, end: int) -> str:
    return prompt[:end].split(" ")[-1]


def test_a_word_that_an_edit_lengthens_is_not_untouched() -> None:
    clean = "the cat sat"
    words = [(0, 3), (4, 7), (8, 11)]
    row = {"prompt": "the cats sat", "clean_starts": [7], "clean_ends": [7], "edit_starts": [7],
           "edit_ends": [8]}  # fmt: skip
    assert untouched_words(row, clean, words) == ([2], [(9, 12)])
    unknown = {"prompt": "a dog", "clean_starts": [], "clean_ends": [], "edit_ends": []}
    assert untouched_words(unknown, clean, words) == ([], [])


def test_queries_before_the_edited_words_see_nothing_of_them(tmp_path) -> None:
    store, prompts = prompts_of(tmp_path, made.Planted(n_items=8))
    found = measure_attention(store, prompts)
    cell = found.cells.index((0, "number:0"))  # after words 2, 4, 7 and 9
    assert np.isfinite(found.share[:, cell]).all()
    styles = prompts.operators[found.variants] == "polite"
    assert styles.any()
    assert np.isnan(found.contrast[styles]).all()  # no control words
    share = found.share[~styles][:, found.cells.index((1, "answer"))]
    assert (share > 0).all()
    assert (share < 1).all()


def test_variants_without_their_clean_prompt_are_refused(tmp_path) -> None:
    paths = made.write(tmp_path, made.Planted(n_items=8))
    store = open_store(paths["activations_path"])
    rows = read_rows(paths["examples_path"], "robustness_examples")
    with pytest.raises(UserError, match="none of the clean prompt"):
        stored_prompts(store, [row for row in rows if row["operator"] != "clean"], [])


def test_rejected_variants_stay_out_of_the_statistics(tmp_path, tiny_model) -> None:
    directory = tmp_path
    paths: Any = made.write(directory, made.Planted(n_items=12))
    answers = read_table(paths["answers_path"], "robustness_answers").to_pylist()
    for row in answers:
        row["accepted"] = row["operator"] != "deletion"
    write_table(paths["answers_path"], "robustness_answers", answers)
    outputs: Any = {key: directory / f"{key}.parquet" for key in TABLES}
    run_internals("m", ModelSettings(local=str(tiny_model)), SETTINGS, 0, **paths, **outputs)
    shifts = read_rows(outputs["shifts_path"], "robustness_shifts")
    assert any(row["operator"] == "deletion" for row in shifts)
    factors = {row["factor"] for row in read_rows(outputs["estimates_path"], "estimates")
               if row["analysis"] == "representation shift"}  # fmt: skip
    assert "keyboard" in factors
    assert "deletion" not in factors
