"""Digest of the code a script can reach: its syntax tree and that of every local import.

Comments, docstrings and formatting do not count, so that mending them reruns nothing; any
change of behaviour in a reachable module does. Only static imports are followed: a module that
is imported by a computed name would be missed. The library has none but the providers of language
models, whose digest the stages that ask put beside their settings.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path

_LIBRARY_DIR = Path(__file__).resolve().parents[2]
# Node names and fields of the syntax tree differ between Python versions.
_TREE_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def code_digest(script: Path | str) -> str:
    """Digest over the script and its import closure, by module."""
    parts = [f"{name}={digest}" for name, digest in sorted(module_digests(script).items())]
    return hashlib.sha256("\n".join([_TREE_VERSION, *parts]).encode()).hexdigest()


def module_digests(script: Path | str) -> dict[str, str]:
    """Digest of the script (under its file name) and of each library module it can reach."""
    path = Path(script).resolve()
    digests = {path.name: _file_digest(path)}
    digests.update(
        {_module_name(module): _file_digest(module) for module in _closure(path) if module != path}
    )
    return digests


def _closure(start: Path) -> set[Path]:
    seen: set[Path] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo.extend(_imports(path))
    return seen


def _module_name(path: Path) -> str:
    parts = path.relative_to(_LIBRARY_DIR).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _file_digest(path: Path) -> str:
    return _read(path.read_bytes())[0]


def _imports(path: Path) -> tuple[Path, ...]:
    _, absolute, relative = _read(path.read_bytes())
    found = [file for name in absolute for file in _module_files(name)]
    for level, module, names in relative:
        package = path.relative_to(_LIBRARY_DIR).parts[:-level]
        base = ".".join([*package, *([module] if module else [])])
        for name in (base, *[f"{base}.{name}" for name in names]):
            found += _module_files(name)
    return tuple(found)


@cache
def _read(
    source: bytes,
) -> tuple[str, tuple[str, ...], tuple[tuple[int, str, tuple[str, ...]], ...]]:
    """Digest and imports of a source text. Cached by the text, so that an edit is always seen."""
    tree = ast.parse(source)
    absolute: list[str] = []
    relative: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            absolute += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            if node.level:
                relative.append((node.level, node.module or "", names))
            else:
                absolute += [node.module or "", *[f"{node.module}.{name}" for name in names]]
    text = ast.dump(_without_docstrings(tree))
    return hashlib.sha256(text.encode()).hexdigest()[:16], tuple(absolute), tuple(relative)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _module_files(name: str) -> list[Path]:
    """Files that importing a dotted name runs: the module and every package above it."""
    parts = name.split(".")
    if not parts[0] or not (_LIBRARY_DIR / parts[0]).exists():
        return []
    files = []
    for depth in range(1, len(parts) + 1):
        place = _LIBRARY_DIR.joinpath(*parts[:depth])
        for candidate in (place / "__init__.py", place.with_suffix(".py")):
            if candidate.exists():
                files.append(candidate)
                break
    return files
