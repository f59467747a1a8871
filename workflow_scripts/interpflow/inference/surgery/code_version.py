"""Digest of the code that decides what a model computes under a plan and how it is measured."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from interpflow import config, engine, inference, models, plans, tasks
from interpflow.tables.provenance import package_versions

_PACKAGES = ("torch", "transformers", "tokenizers")


@cache
def measuring_code() -> str:
    """Digest of the modules that execute plans, read measures and score generated text, and of the
    versions of the packages that they compute with. Comments, docstrings and formatting do not
    count."""
    return source_digest(measuring_files())


def measuring_files() -> list[Path]:
    """The modules whose change may change a stored row."""
    room, inner, asked = _directory(inference), _directory(engine), _directory(tasks)
    parts = ("architecture", "batches", "model", "prompts", "sites")
    scoring = ("builtin", "items", "scorers", "text_quality")
    return [
        *sorted((room / "surgery").glob("*.py")),
        *(room / name for name in ("generation.py", "joined_tokens.py")),
        *sorted((inner / "layers").glob("*.py")),
        *sorted((inner / "passes").glob("*.py")),
        *sorted((inner / "proofs").glob("*.py")),
        *(inner / f"{name}.py" for name in parts),
        *(_directory(models) / name for name in ("token_cuts.py", "tokens.py")),
        *(asked / "nlp" / f"{name}.py" for name in scoring),
        *(asked / name for name in ("counting/numbers.py", "typed_numbers.py")),
        _directory(config) / "identity.py",
        _directory(plans) / "layer_plan.py",
    ]


def source_digest(files: Iterable[Path]) -> str:
    """Digest of the syntax trees of Python files under their names, and of the packages."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    versions = sorted(package_versions(_PACKAGES).items())
    parts = [python, *[f"{name}={version}" for name, version in versions]]
    for path in files:
        tree = ast.parse(path.read_bytes())
        parts.append(f"{path.parent.name}/{path.name}={ast.dump(_without_docstrings(tree))}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _directory(package: object) -> Path:
    return Path(str(getattr(package, "__file__", ""))).parent
