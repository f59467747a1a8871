"""The interventions on a real (random) model: places, directions, identities, refusals."""

import numpy as np
import pytest

from interpflow.config.base import Range
from interpflow.config.counting import CountingData, CountingPairs
from interpflow.config.model import ModelSettings
from interpflow.models.named import load_named
from interpflow.studies.counting import mediation
from interpflow.studies.counting.generation import generate
from interpflow.studies.counting.pair_repair import UNKNOWN_WORD
from interpflow.studies.counting.prepared_pairs import (
    minimal_slots,
    prefix_slots,
    prepare_pairs,
    read_wording,
)
from interpflow.studies.counting.slopes import hybrid_check
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, read_table
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates

PAIRS = CountingPairs(n_minimal=12, n_prefix=16, n_random=8, lengths=Range(min=4, max=6))


def run(tiny_model, here, refusal=""):
    write_document(here / "benchmark.json", "counting_benchmark", {"mediation_refused": refusal})
    mediation.run_mediation(
        "tiny", ModelSettings(local=str(tiny_model)), here / "pairs.parquet",
        here / "benchmark.json", PAIRS, components=["resid_post", "attn_out", "mlp_out"],
        heads=True, window=2, seed=0, lexicon_path=None, templates_path=None,
        pairs_path=here / "used.parquet", effects_path=here / "effects.parquet",
        gates_path=here / "gates.json",
    )  # fmt: skip


@pytest.fixture(scope="module")
def swept(tiny_model, tmp_path_factory):
    here = tmp_path_factory.mktemp("swept")
    data = CountingData(categories=["fruit", "bird"], lengths=Range(min=4, max=6))
    generate(
        data, PAIRS, 0, lexicon_path=None, templates_path=None,
        examples_path=here / "examples.parquet", pairs_path=here / "pairs.parquet",
    )  # fmt: skip
    run(tiny_model, here)
    return here, read_table(here / "effects.parquet", "pair_effects").to_pandas()


def test_every_kind_direction_donor_and_component_is_there(swept):
    _, table = swept
    counts = table.groupby(["kind", "direction", "donor"])["pair_id"].nunique()
    assert counts["minimal", "denoise", "control"] == counts["minimal", "noise", "real"] == 12
    assert counts["prefix", "noise", "random"] == 16
    assert counts["random", "denoise", "real"] == 8
    assert ("random", "denoise", "control") not in counts
    components = set(table["component"])
    assert components == {"embed", "resid_post", "attn_out", "mlp_out", "head_out"}
    assert np.isfinite(table["logit_difference"]).all()


def test_last_residual_at_the_answer_is_the_donors_run(swept):
    _, table = swept
    last = table[(table["component"] == "resid_post") & (table["layer"] == 1)]
    last = last[last["slot"] == "answer"]
    np.testing.assert_allclose(
        last["logit_difference"], last["donor_logit_difference"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(last[last["donor"] == "real"]["kl"], 0, atol=1e-6)


def test_the_embedding_of_the_swapped_word_is_the_donors_run(swept):
    _, table = swept
    first = table[(table["component"] == "embed") & (table["slot"] == "item")]
    first = first[(first["kind"] == "minimal") & (first["donor"] == "real")]
    np.testing.assert_allclose(
        first["expected_count"], first["donor_expected_count"], rtol=1e-5, atol=1e-5
    )
    assert (first["expected_count"] != first["base_expected_count"]).any()


def test_prefix_at_the_embedding_is_the_donors_run_and_later_places_cannot_differ(swept):
    _, table = swept
    prefix = table[table["kind"] == "prefix"]
    assert hybrid_check(prefix)["passed"]
    same = prefix[(prefix["component"] == "embed") & (prefix["slot"] == "suffix")]
    same = same[same["donor"] == "real"]
    assert (same["expected_count"] == same["base_expected_count"]).all()
    assert not same["ran"].any()


def test_hybrid_check_notices_a_sweep_that_patches_nothing(swept):
    _, table = swept
    prefix = table[table["kind"] == "prefix"].copy()
    prefix["expected_count"] = prefix["base_expected_count"] + 1e-2
    assert not hybrid_check(prefix)["passed"]


def test_gates_and_accounting_are_written(swept):
    here, _ = swept
    document = read_document(here / "gates.json", "counting_gates")
    report = document["templates"]["parentheses"]
    assert document["status"] == "run"
    assert all(row["passed"] for row in report["gates"]["rows"])
    used = report["pairs"]["minimal"]
    assert used["used"] == used["wanted"] == 12
    assert used["repaired"] == 0
    assert {row["covariate"] for row in used["balance"]} == {"word length", "frequency band"}
    assert report["note"] == ""
    assert report["tail_tokens"][-1].strip() == "("


def test_a_failed_gate_fails_the_job(swept, tiny_model, monkeypatch):
    here, _ = swept
    from interpflow.engine.sweeps.gates import GateReport, GateRow

    def failing(*_, **__):
        row = GateRow("self patch", False, 1.0, 1e-5, "planted")
        return GateReport((row,), {})

    monkeypatch.setattr(mediation, "run_gates", failing)
    with pytest.raises(RuntimeError, match="self patch"):
        run(tiny_model, here)


def test_a_refused_model_is_not_patched(swept, tiny_model, tmp_path, monkeypatch):
    here, _ = swept
    (tmp_path / "pairs.parquet").write_bytes((here / "pairs.parquet").read_bytes())
    monkeypatch.setattr(mediation, "load_named", None)
    run(tiny_model, tmp_path, refusal="at the floor")
    assert len(read_table(tmp_path / "effects.parquet", "pair_effects")) == 0
    assert len(read_table(tmp_path / "used.parquet", "counting_pairs")) == 0
    document = read_document(tmp_path / "gates.json", "counting_gates")
    assert (document["status"], document["reason"]) == ("refused", "at the floor")


def test_places_name_the_tokens_they_say(swept, tiny_model):
    here, _ = swept
    _, tokenizer = load_named("tiny", ModelSettings(local=str(tiny_model)))
    wording = read_wording(tokenizer, load_lexicon(), load_templates()[0], "auto", 6)
    rows = read_rows(here / "pairs.parquet", "counting_pairs")
    for kind in ("minimal", "prefix"):
        chosen = [row for row in rows if row["kind"] == kind]
        pairs, _ = prepare_pairs(chosen, wording, 5)
        assert not any(pair.repaired for pair in pairs)
        for pair in pairs:
            texts = pair.clean.texts
            places = minimal_slots(pair, 3) if kind == "minimal" else prefix_slots(pair, 2)
            k = pair.row["position"]
            if kind == "minimal":
                (item,) = places["item"]
                assert texts[item].strip() == pair.row["clean_words"][k]
                assert texts[places["answer"][0]].strip() == "("
                assert places["tail-1"] == [places["answer"][0] - 1]
            else:
                suffix = [texts[i].strip() for i in places["suffix"]]
                assert suffix == pair.row["clean_words"][k:]
                assert [texts[i].strip() for i in places["prefix"]] == pair.row["clean_words"][:k]
                assert places["window"] == places["suffix"][:2]
                assert (places["far"] or []) == places["suffix"][2:]


def test_a_word_that_no_list_holds_is_refused_and_counted(swept, tiny_model):
    here, _ = swept
    _, tokenizer = load_named("tiny", ModelSettings(local=str(tiny_model)))
    rows = read_rows(here / "pairs.parquet", "counting_pairs")[:6]
    for row in rows:
        row["corrupted_words"][row["position"]] = "unheardof"
    wording = read_wording(tokenizer, load_lexicon(), load_templates()[0], "auto", 6)
    pairs, refused = prepare_pairs(rows, wording, 6)
    assert pairs == []
    assert refused == {UNKNOWN_WORD: 6}


def test_random_pairs_are_patched_where_they_have_places(swept):
    _, table = swept
    slots = table.groupby(["kind", "component"])["slot"].unique().map(set)
    assert {"words", "answer", "tail-1"} <= slots["random", "resid_post"]
    assert not any(slot.startswith(("item", "later")) for slot in slots["random", "resid_post"])
    assert slots["random", "mlp_out"] == {"words", "answer"}
    assert "words" not in slots["minimal", "resid_post"]


def test_the_list_words_of_random_pairs_at_the_embedding_are_the_donors_run(swept):
    _, table = swept
    words = table[(table["kind"] == "random") & (table["slot"] == "words")]
    words = words[words["component"] == "embed"]
    np.testing.assert_allclose(
        words["expected_count"], words["donor_expected_count"], rtol=1e-5, atol=1e-5
    )


def test_far_is_missing_where_the_window_reaches_the_end(swept):
    here, table = swept
    rows = {row["pair_id"]: row for row in read_rows(here / "used.parquet", "counting_pairs")}
    prefix = table[table["kind"] == "prefix"]
    far = set(prefix[prefix["slot"] == "far"]["pair_id"])
    expected = {
        key for key, row in rows.items()
        if row["kind"] == "prefix" and row["position"] + 2 < row["length"]
    }  # fmt: skip
    assert far == expected
    assert 0 < len(far) < 16


def test_the_pairs_used_are_written(swept):
    here, table = swept
    used = read_rows(here / "used.parquet", "counting_pairs")
    assert {row["pair_id"] for row in used} == set(table["pair_id"])
    made = {row["pair_id"]: row for row in read_rows(here / "pairs.parquet", "counting_pairs")}
    assert all(made[row["pair_id"]] == row for row in used)
