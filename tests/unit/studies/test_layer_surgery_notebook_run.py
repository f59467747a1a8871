"""The layer surgery study from a notebook, as the documentation shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import interpflow
from interpflow.paths import RESOURCES_DIR
from interpflow.report.layer_surgery_figures import draw_figures
from interpflow.report.page import write_report
from interpflow.workflow.layer_surgery_stages import (
    AGENT_FIGURE,
    JUDGING_FIGURE,
    LAYER_SURGERY_FIGURES,
)

NAME = "small_tasks"
TABLES = {
    "intact": "surgery_intact", "plans": "surgery_plans", "answers": "surgery_answers",
    "losses": "surgery_text_losses", "generations": "surgery_generations",
    "lenses": "surgery_lenses", "exits": "surgery_exits", "trajectories": "surgery_trajectories",
    "sets": "surgery_sets", "agent_tests": "surgery_tests", "judging": "surgery_judging",
    "lens_estimates": "estimates", "set_estimates": "estimates", "effects": "estimates",
    "judging_estimates": "estimates",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (RESOURCES_DIR / "reference" / NAME).is_dir(),
    reason="the reference models are not in this checkout",
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {
        "models": {NAME: {"reference": NAME}},
        "counting": None,
        "robustness": None,
        "layer_surgery": {
            "store": str(tmp_path / "experiments"),
            "tasks": {"builtin": ["antonyms"], "n_items": 12},
            "texts": {"n_documents": 30, "n_lens": 40, "n_agent": 80, "max_tokens": 16},
            "plans": {
                "repeats": [2], "random_orders": 6, "null_documents": 4, "controls": 1,
                "ablations": [], "parallel": False, "keep": False,
            },
            "measures": {"top_tokens": 1, "n_generated": 1, "max_new_tokens": 4},
            "lenses": {"steps": 10},
            "search": {"max_plans": 6},
            "agent": {"n_units": 8, "budget": {"confirmatory": 3, "turns": 20}},
            "judging": {
                "plants": ["no_op"], "places": 1, "policies": ["offline"], "seeds": 1,
                "n_explored": 8, "n_units": 8, "max_tokens": 12,
            },
            "analysis": {"n_permutations": 99, "n_resamples": 99},
        },
    }  # fmt: skip


def _check_figures_and_page(found: dict[str, Any], results: Path, drawn: Path) -> None:
    """Every figure can be drawn from the tables, and the page shows the study."""
    drawn.mkdir()
    names = [*LAYER_SURGERY_FIGURES, AGENT_FIGURE, JUDGING_FIGURE]
    inputs = {name: str(results / NAME / f"{name}.parquet") for name in TABLES}
    inputs["tests"] = inputs["agent_tests"]
    paths = {name: str(drawn / NAME / f"{name}.svg") for name in names}
    draw_figures(NAME, inputs, paths)
    write_report(
        {"models": [], "robustness_models": [], "layer_surgery_models": [NAME]},
        {"layer_surgery": results / "summary.json", "layer_surgery_figures": list(paths.values())},
        drawn / "index.html",
    )
    page = (drawn / "index.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == len(names)
    assert found["effects"]["claims"][0]["text"] in page
    assert f'id="surgery-{NAME}"' in page
    shown = [row for row in found["effects"]["endpoints"] if row["estimate"] is not None]
    assert shown
    assert all(f"{row['estimate']:.3f}" in page for row in shown)


def test_the_whole_study_and_again_from_its_store(config: dict[str, Any], tmp_path: Path) -> None:
    summary = interpflow.run_layer_surgery(config, tmp_path / "results")
    assert set(summary["models"]) == {NAME}
    found = summary["models"][NAME]
    assert found["gates"]["tasks"]["antonyms"]["analysed"]
    assert found["agent"]["model"] == NAME
    assert found["judging"]["sentence"] in " ".join(summary["verdicts"][NAME])
    _check_figures_and_page(found, tmp_path / "results/layer_surgery", tmp_path / "drawn")
    here = tmp_path / "results/layer_surgery" / NAME
    tables = {name: interpflow.read_table(here / f"{name}.parquet", table)
              for name, table in TABLES.items()}  # fmt: skip
    empty = {name for name, table in tables.items() if table.num_rows == 0}
    assert not empty
    assert tables["plans"].num_rows == sum(found["sweep"]["plans"].values())
    store = interpflow.read_document(here / "sweep.json", "layer_surgery_sweep")
    assert sum(each["n_rows"] for each in store["measures"]) == sum(
        tables[name].num_rows for name in ("answers", "losses", "generations")
    )
    # Runs are where the settings say, and a second call finds all of them.
    runs = stored(tmp_path)
    assert runs
    interpflow.run_layer_surgery(config, tmp_path / "again")
    assert stored(tmp_path) == runs
    other = tmp_path / "again/layer_surgery" / NAME
    for name, table in TABLES.items():
        again = interpflow.read_table(other / f"{name}.parquet", table)
        assert again.equals(tables[name]), name


def stored(folder: Path) -> dict[str, int]:
    """When each run of the store was finished."""
    return {
        str(path): os.stat(path).st_mtime_ns
        for path in (folder / "experiments").glob("??/*/*/done")
    }


def test_wrong_settings_are_one_message_before_any_work(
    config: dict[str, Any], tmp_path: Path
) -> None:
    study = config["layer_surgery"]
    study["plans"]["own"] = [{"kind": "skip", "blocks": [8]}]
    with pytest.raises(interpflow.UserError, match="there is no block 8"):
        interpflow.run_layer_surgery(config, tmp_path / "results")
    study["plans"]["own"] = []
    study["tasks"]["builtin"] = ["antonym"]
    with pytest.raises(interpflow.UserError, match="did you mean 'antonyms'"):
        interpflow.run_layer_surgery(config, tmp_path / "results")
    with pytest.raises(interpflow.UserError, match="switched off"):
        interpflow.run_layer_surgery({"models": config["models"]}, tmp_path / "results")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "experiments").exists()
