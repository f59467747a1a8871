"""Digest of the code that decides what a model computes under a plan and how it is measured."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from interpflow import engine, inference, plans
from interpflow.tables.provenance import package_versions

_PACKAGES = ("torch", "transformers", "tokenizers")


@cache
def measuring_code() -> str:
    """Digest of the modules that execute plans and read measures, and of the versions of the
    packages that they compute with. Comments, docstrings and formatting do not count."""
    room, inner = _directory(inference), _directory(engine)
    files = [
        *sorted((room / "surgery").glob("*.py")),
        room / "joined_tokens.py",
        *sorted((inner / "layers").glob("*.py")),
        *sorted((inner / "passes").glob("*.py")),
        inner / "architecture.py",
        _directory(plans) / "layer_plan.py",
    ]
    return source_digest(files)


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
