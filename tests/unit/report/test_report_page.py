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
        {"models": ["model"]},
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
    page.write_report({"models": []}, {"figures": []}, tmp_path / "index.html")
    assert "interpflow report" in (tmp_path / "index.html").read_text(encoding="utf-8")
