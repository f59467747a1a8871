"""interpflow takes language models apart: data, behaviour, interventions and their statistics.

From a notebook: `interpflow.run_counting({...})`, `interpflow.run_robustness({...})`,
`interpflow.run_layer_surgery({...})`, `interpflow.engine.load(...)`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Loaded when first asked for. By name, not by an import statement: the code digest of a rule
# follows import statements, and every rule imports this package.
_PUBLIC = {
    "UserError": "interpflow.errors",
    "load_config": "interpflow.config.load",
    "read_document": "interpflow.tables.documents",
    "read_table": "interpflow.tables.parquet",
    "run_counting": "interpflow.studies.counting.run",
    "run_layer_surgery": "interpflow.studies.layer_surgery.run",
    "run_robustness": "interpflow.studies.robustness.run",
}
_ROOMS = ("activations", "config", "engine", "inference", "models", "report", "stats", "studies",
          "tables", "tasks")  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _ROOMS:
        return import_module(f"interpflow.{name}")
    raise AttributeError(f"module 'interpflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__version__", *_PUBLIC, *_ROOMS])
