"""Why an artifact would be made again: what it was made from against what is configured now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.tables.parquet import read_provenance
from interpflow.tables.provenance import file_digest
from interpflow.workflow.code_digest import module_digests
from interpflow.workflow.plan import Plan
from interpflow.workflow.stage import SCRIPTS_DIR, Stage

# What of an artifact's provenance is compared with the present.
COMPARED = {"spec": Mapping, "code": str, "modules": Mapping, "versions": Mapping,
            "inputs": Mapping}  # fmt: skip


def reasons(config: Config) -> dict[str, list[str]]:
    """Artifact → what changed since it was made; an empty list where nothing did.

    An artifact whose inputs will be made again is not listed for that: follow its inputs.
    """
    found: dict[str, list[str]] = {}
    for stage in Plan(config).stages():
        for output in stage.outputs:
            found[output] = _reasons(stage, Path(output))
    return found


def print_reasons(config: Config) -> None:
    """Print one line per artifact that would be made again, and the number that would not."""
    found = reasons(config)
    changed = {path: why for path, why in found.items() if why}
    for path, why in changed.items():
        print(f"{path}: {'; '.join(why)}")
    print(f"{len(found) - len(changed)} artifacts are up to date, {len(changed)} are not")


def _reasons(stage: Stage, path: Path) -> list[str]:
    if not path.exists():
        return ["missing"]
    try:
        made_from = _provenance(path)
    except UserError as error:
        return [error.what]
    if made_from is None:
        return []
    now = stage.parameters
    why = [
        f"setting {key}: {old} -> {new}"
        for key, old, new in _differences(made_from["spec"], json.loads(now["spec"]))
    ]
    if made_from["code"] != now["code"]:
        why.append("code: " + ", ".join(_changed_modules(made_from["modules"], stage)))
    versions = json.loads(now["lib"])
    why += [
        f"package {name}: {made_from['versions'].get(name)} -> {versions.get(name)}"
        for name in sorted(set(versions) | set(made_from["versions"]))
        if made_from["versions"].get(name) != versions.get(name)
    ]
    why += [
        f"input {name} changed"
        for name, digest in made_from["inputs"].items()
        if Path(name).exists() and file_digest(name) != digest
    ]
    return why


def _provenance(path: Path) -> Mapping[str, Any] | None:
    """Provenance of an artifact; None for pictures and pages, which follow their tables."""
    if path.is_dir():
        origin = _document_provenance(path / "manifest.json")
    elif path.suffix == ".parquet":
        origin = read_provenance(path)
    elif path.suffix == ".json":
        origin = _document_provenance(path)
    else:
        return None
    if any(not isinstance(origin.get(key), kind) for key, kind in COMPARED.items()):
        raise UserError("it does not say what it was made from", where=str(path))
    return origin


def _document_provenance(path: Path) -> Mapping[str, Any]:
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("damaged document", where=str(path)) from error
    if not isinstance(origin, Mapping):
        raise UserError("damaged document", where=str(path))
    return origin


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: list[tuple[str, Any, Any]] = []
        for name in sorted(set(old) | set(new)):
            place = f"{key}.{name}" if key else name
            found += _differences(old.get(name), new.get(name), place)
        return found
    return [] if old == new else [(key, old, new)]


def _changed_modules(old: Mapping[str, str], stage: Stage) -> list[str]:
    new = module_digests(SCRIPTS_DIR / stage.script)
    changed = [name for name in sorted(set(old) | set(new)) if old.get(name) != new.get(name)]
    return changed or ["Python version"]
