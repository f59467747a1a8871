"""The result record, gates, and seeds that depend on rule and wildcards only."""

import json
import math
import subprocess
import sys

import numpy as np

from interpflow.stats.record import (
    EMPTY_CELL,
    TOO_FEW_CLUSTERS,
    Estimate,
    Gate,
    to_rows,
    undefined,
)
from interpflow.stats.seeds import seed_sequence, spawn_seeds, stable_hash


def test_row_has_null_for_undefined_and_is_json():
    estimate = undefined("x", EMPTY_CELL, n_units=0)
    row = estimate.to_row()
    assert row["estimate"] is None
    assert row["p_value"] is None
    assert row["flags"] == "EMPTY_CELL"
    assert json.loads(json.dumps(to_rows([estimate]), allow_nan=False))[0]["n_units"] == 0


def test_numpy_scalars_become_python_numbers_and_flags_are_unique():
    estimate = Estimate(
        quantity="x",
        estimate=np.float64(0.5),  # type: ignore[arg-type]
        n_units=np.int64(3),  # type: ignore[arg-type]
        flags=(TOO_FEW_CLUSTERS, TOO_FEW_CLUSTERS),
    )
    assert type(estimate.estimate) is float
    assert type(estimate.n_units) is int
    assert estimate.flags == (TOO_FEW_CLUSTERS,)
    assert estimate.with_flags(EMPTY_CELL).flags == (TOO_FEW_CLUSTERS, EMPTY_CELL)
    assert estimate.renamed("y", family="f").family == "f"
    assert estimate.defined


def test_gate_row_hides_no_nan():
    row = Gate(name="g", passed=False, value=math.nan, threshold=1.0, reason="none").to_row()
    assert row["value"] is None
    assert row["passed"] is False


def test_stable_hash_ignores_order_and_sees_values():
    assert stable_hash("r", {"a": 1, "b": 2}) == stable_hash("r", {"b": 2, "a": 1})
    assert stable_hash("r", {"a": 1}) != stable_hash("r", {"a": 2})
    assert stable_hash("r") != stable_hash("s")


def test_seeds_are_the_same_in_another_process_and_differ_between_jobs():
    code = (
        "from interpflow.stats.seeds import spawn_seeds; print(spawn_seeds(1, 'r', {'m': 'x'}, 2))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "123"}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    here = spawn_seeds(1, "r", {"m": "x"}, 2)
    assert printed.strip() == str(here)
    assert (
        len({*here, *spawn_seeds(1, "r", {"m": "y"}, 2), *spawn_seeds(2, "r", {"m": "x"}, 2)}) == 6
    )
    assert all(0 <= seed < 2**63 for seed in here)
    first = np.random.default_rng(seed_sequence(1, "r")).random()
    assert first == np.random.default_rng(seed_sequence(1, "r")).random()


def test_no_module_of_the_room_imports_anything_heavy():
    code = (
        "import importlib, pkgutil, sys, interpflow.stats as room\n"
        "for found in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module(f'interpflow.stats.{found.name}')\n"
        "heavy = ('torch', 'scipy.stats', 'scipy.optimize', 'statsmodels', 'sklearn', 'pandas')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert printed.strip() == "[]"
