"""The whole study from a notebook, as the documentation shows it."""

import pytest

import interpflow

SMALL = {
    "data": {"categories": ["fruit", "bird"], "lengths": {"min": 3, "max": 5}},
    "benchmark": {"n_permutations": 199},
    "pairs": {"n_minimal": 8, "n_prefix": 8, "lengths": {"min": 4, "max": 5}},
    "mediation": {"n_permutations": 199},
}


def test_a_random_model_is_at_the_floor_and_refused(tiny_model, tmp_path):
    summary = interpflow.run_counting(
        {"models": {"tiny": {"local": str(tiny_model)}}, "counting": SMALL}, tmp_path
    )
    found = summary["models"]["tiny"]
    assert found["benchmark"]["at_floor"]
    assert found["running_count"]["verdict"] == "not run"
    assert "was not tested" in summary["verdicts"]["tiny"]
    table = interpflow.read_table(
        tmp_path / "counting" / "tiny" / "answers.parquet", "counting_answers"
    )
    assert table.num_rows == summary["data"]["n_prompts"]


def test_wrong_settings_are_one_message(tmp_path):
    with pytest.raises(interpflow.UserError, match="did you mean 'pairs'"):
        interpflow.run_counting({"models": {"a": {"local": "x"}}, "counting": {"pirs": {}}})


def test_public_names_exist():
    for name in dir(interpflow):
        assert getattr(interpflow, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        interpflow.nothing  # noqa: B018
