"""The store asked with SQL, and exported to MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from interpflow.errors import UserError
from interpflow.experiments.export_mlflow import KEY_TAG, export_runs
from interpflow.experiments.spec import RunSpec
from interpflow.experiments.store import Store
from interpflow.experiments.views import connect


def filled(root: Path) -> list[RunSpec]:
    store = Store(root)
    specs = [
        RunSpec(model={"name": "m's", "weights": "w"}, plan=plan, measure="text",
                item_ids=("a", "b"))
        for plan in ("0 1", "1 0")
    ]  # fmt: skip
    for number, spec in enumerate(specs):
        store.measured(
            spec,
            lambda items, value=float(number): [
                {
                    "document_id": item, "n_tokens": 3, "loss": 1.0, "delta_loss": value,
                    "kl": None, "top1_kept": 1.0, "rank": 2.0,
                }
                for item in items
            ],
        )  # fmt: skip
    return specs


def test_views_join_rows_with_their_runs(tmp_path: Path) -> None:
    root = tmp_path / "it's here"
    specs = filled(root)
    (root / "zz" / "cell" / "half").mkdir(parents=True)  # no `done`: no run
    with connect(root) as database:
        runs = database.sql("SELECT run, model, plan, n_items FROM runs ORDER BY plan").fetchall()
        assert runs == [(spec.key, "m's", spec.plan, 2) for spec in specs]
        means = database.sql(
            "SELECT plan, model, avg(delta_loss), count(*) FROM surgery_text_losses "
            "GROUP BY plan, model ORDER BY plan"
        ).fetchall()
        assert means == [("0 1", "m's", 0.0, 2), ("1 0", "m's", 1.0, 2)]
        assert database.sql("SELECT count(*) FROM surgery_answers").fetchall() == [(0,)]


def test_views_of_an_empty_store(tmp_path: Path) -> None:
    with connect(tmp_path / "none") as database:
        assert database.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]


class FakeClient:
    """The part of MLflow's client that is used, in memory."""

    runs: list[SimpleNamespace]

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.uri, self.experiments = tracking_uri, {}

    def get_experiment_by_name(self, name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def search_runs(self, places: list[str], query: str, max_results: int) -> list[Any]:
        wanted = query.split("'")[1]
        return [run for run in self.runs if run.tags[KEY_TAG] == wanted][:max_results]

    def create_run(self, place: str, tags: dict[str, str]) -> Any:
        run = SimpleNamespace(tags=tags, params={}, metrics={}, status="RUNNING")
        run.info = SimpleNamespace(run_id=len(self.runs))
        self.runs.append(run)
        return run

    def log_param(self, run_id: int, name: str, value: str) -> None:
        self.runs[run_id].params[name] = value

    def log_metric(self, run_id: int, name: str, value: float) -> None:
        self.runs[run_id].metrics[name] = value

    def set_terminated(self, run_id: int) -> None:
        self.runs[run_id].status = "FINISHED"


def test_runs_are_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("mlflow"), ModuleType("mlflow.tracking")
    FakeClient.runs = []
    module.MlflowClient = FakeClient  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", module)
    specs = filled(tmp_path)
    assert export_runs(tmp_path, "surgery") == 2
    assert export_runs(tmp_path, "surgery") == 0
    made = {run.tags[KEY_TAG]: run for run in FakeClient.runs}
    last = made[specs[1].key]
    assert (last.params["plan"], last.metrics["delta_loss"], last.status) == (
        "1 0",
        1.0,
        "FINISHED",
    )
    assert "kl" not in last.metrics


def test_without_mlflow_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(UserError) as caught:
        export_runs(tmp_path, "surgery")
    assert "pip install" in caught.value.remedy
