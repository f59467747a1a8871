"""No module that decides a stored number of layer surgery is left out of the digest of its code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import interpflow
from interpflow.inference.surgery.code_version import measuring_files

PACKAGE = Path(str(interpflow.__file__)).parent
# Imported by what is digested, and without a say in any number: messages, paths, progress, other
# kinds of passes, and the wording of tasks (an item is known by a digest of its own).
DECIDES_NOTHING = {
    "errors.py", "inference/batching.py", "inference/forward.py", "engine/alignment.py",
    "engine/interventions.py", "engine/positions.py", "engine/gate_report.py",
    "tasks/nlp/generated.py", "tasks/nlp/held_out.py", "tasks/nlp/listed.py", "plans/anomalies.py",
    "tables/provenance.py",
}  # fmt: skip


def imported(path: Path) -> Iterator[Path]:
    """Modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            module = PACKAGE.parent / Path(*name.split(".")).with_suffix(".py")
            if name.startswith("interpflow.") and module.is_file():
                yield module


def test_what_the_measuring_modules_import_is_digested_or_decides_nothing() -> None:
    digested = set(measuring_files())
    assert all(path.is_file() for path in digested)
    found = {path for each in digested for path in imported(each)}
    left_out = {path.relative_to(PACKAGE).as_posix() for path in found - digested}
    assert left_out <= DECIDES_NOTHING


def test_scorers_and_the_model_are_digested() -> None:
    names = {path.relative_to(PACKAGE).as_posix() for path in measuring_files()}
    assert {"tasks/nlp/scorers.py", "tasks/nlp/text_quality.py", "engine/model.py",
            "inference/generation.py", "models/tokens.py"} <= names  # fmt: skip
