"""The report: self-contained, complete, and safe against text from models and data."""

import re

import pytest

from interpflow.report import page
from interpflow.report.theme import note, save_svg
from interpflow.tables.documents import write_document


def record(**changes):
    row = {
        "quantity": "accuracy", "estimate": 0.5, "ci_low": 0.4, "ci_high": 0.6, "ci_level": 0.95,
        "p_value": 0.01, "p_adjusted": None, "test": "wilson", "n_units": 20, "n_clusters": None,
        "flags": "", "analysis": "scored", "factor": "all", "level": "all",
    }  # fmt: skip
    return row | changes


def robustness_summary(name="model"):
    operator = {"factor": "operator", "level": "keyboard"}
    gate = {"name": "own_pattern", "passed": None, "value": None, "tolerance": 1e-5,
            "detail": "no independent route"}  # fmt: skip
    found = {
        "manifest": {"architecture": "Llama", "n_params": 1000, "n_layers": 2,
                     "weights_sha256": "a" * 64, "dtype": "float32"},
        "benchmark": {
            "sentence": "<b>keyboard</b> costs 12 points",
            "n_variants": 30, "n_prompts": 10, "n_families": 9,
            "n_left_out": {"too long for the context": 2},
            "endpoints": [record(name="P1 loss of accuracy", about="keyboard, 2 edits",
                                 estimate=-0.12)],
            "gates": [{"name": "null operator", "passed": True, "value": 0.0, "threshold": 0.0}],
        },
        "mediation": {"sentence": "81 % is undone.", "primary": record(quantity="restoration")},
        "gates": {"gates": {"rows": [gate]}, "audit": {"n_cells": 7, "relative": 1e-7,
                                                       "limit": 1e-5}},
        "inside": [record(factor="log_did 1", level="pattern layer 1 head 2 at answer")],
        "estimates": [
            record(analysis="accuracy strict", quantity="mean", estimate=0.875, **operator),
            record(analysis="accuracy strict", quantity="change", estimate=-0.125, **operator),
            record(analysis="flips", quantity="right to wrong", estimate=0.25, **operator),
        ],
    }  # fmt: skip
    operators = {"keyboard": {"family": "typo", "n_texts": 10, "n_accepted": 9, "n_not_made": 1,
                              "rejected": {"negation changed": 1},
                              "not_made": {"too few words": 1}}}  # fmt: skip
    data = {"n_items": 10, "n_texts": 40, "n_accepted": 39, "n_not_made": 1, "embedding": "minilm",
            "min_similarity": 0.6, "by_validator": False, "operators": operators}  # fmt: skip
    return {"data": data, "models": {name: found}}


def summary(name="model"):
    gate = {"name": "duplicates", "value": 0.0, "threshold": 0.01, "passed": True}
    benchmark = {
        "sentence": "<script>alert(1)</script> counts 50 % right",
        "floors": {"uniform": 0.1, "best_constant": 0.2, "length_only": 0.2, "own_marginal": 0.1},
        "ceiling": 1.0,
        "parse_rate": 0.9,
        "error_kinds": {"off by one": 3},
        "gates": [{**gate, "name": "input sensitivity"}],
    }
    found = {
        "manifest": {"architecture": "Llama", "n_params": 1000, "n_layers": 2,
                     "weights_sha256": "a" * 64, "dtype": "float32"},
        "benchmark": benchmark,
        "estimates": [record(), record(quantity="bias", estimate=None, flags="EMPTY_CELL")],
        "gates": {"templates": {}},
        "mediation": [],
        "running_count": {"verdict": "not run", "sentence": "Not tested: at the floor."},
    }  # fmt: skip
    data = {"n_prompts": 10, "n_lists": 10, "n_pairs": {"minimal": 5}, "gates": [gate]}
    return {"data": data, "models": {name: found}, "comparison": []}


@pytest.fixture
def html(tmp_path):
    write_document(tmp_path / "summary.json", "counting_summary", summary())
    figure = tmp_path / "model" / "figures" / "accuracy.svg"
    save_svg(note("Accuracy", "nothing to show"), figure)
    page.write_report(
        {"models": ["model"], "robustness_models": [], "layer_surgery_models": []},
        {"summary": tmp_path / "summary.json", "figures": [str(figure)]},
        tmp_path / "index.html",
    )
    return (tmp_path / "index.html").read_text(encoding="utf-8")


def test_numbers_intervals_floors_and_figures_are_on_the_page(html):
    for text in ("0.500", "[0.400, 0.600]", "not run", "Not tested: at the floor.", "<svg",
                 "floors", "errors: off by one", "EMPTY_CELL"):  # fmt: skip
        assert text in html


def test_nothing_is_loaded_from_elsewhere(html):
    assert not re.search(r'(src|href)="(?!#)', html)
    assert "<script" not in html


def test_text_of_models_is_escaped(html):
    assert "&lt;script&gt;" in html


def test_a_run_without_studies_has_a_page(tmp_path):
    page.write_report(
        {"models": [], "robustness_models": [], "layer_surgery_models": []},
        {"figures": []},
        tmp_path / "index.html",
    )
    assert "interpflow report" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_robustness_study_has_its_part(tmp_path):
    write_document(tmp_path / "summary.json", "robustness_summary", robustness_summary())
    figure = tmp_path / "model" / "figures" / "restoration.svg"
    save_svg(note("What restores the answer", "nothing to show"), figure)
    inputs = {
        "figures": [],
        "robustness": tmp_path / "summary.json",
        "robustness_figures": [str(figure)],
    }
    page.write_report(
        {"models": [], "robustness_models": ["model"], "layer_surgery_models": []},
        inputs,
        tmp_path / "index.html",
    )
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in ("&lt;b&gt;keyboard&lt;/b&gt;", "81 % is undone.", "-0.120", "0.875", "-0.125",
                 "0.250", "2 too long for the context", "1 negation changed", "too few words",
                 "no independent route", "7 sites run again", "pattern layer 1 head 2 at answer",
                 "<svg", "sentence embedding (minilm"):  # fmt: skip
        assert text in html, text
    assert not re.search(r'(src|href)="(?!#)', html)
