"""The one direction of imports, and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from interpflow.paths import PROJECT_DIR

PACKAGE = PROJECT_DIR / "workflow_scripts" / "interpflow"
SCRIPTS = PROJECT_DIR / "workflow_scripts"
ORDER = ("errors", "paths", "config", "tables", "activations", "experiments", "tasks", "plans",
         "stats", "models", "engine", "inference", "llm", "embedding", "clustering", "agent",
         "studies", "report", "workflow")  # fmt: skip
WITHOUT_TORCH = ("errors", "paths", "config", "tables", "activations", "experiments", "tasks",
                 "plans", "stats", "agent", "report", "workflow")  # fmt: skip
LIGHT_SCRIPTS = ("counting_generation", "counting_validation", "counting_benchmark",
                 "counting_effects", "counting_running_count", "counting_comparison",
                 "counting_summary", "counting_figures", "layer_surgery_generation",
                 "layer_surgery_free", "layer_surgery_effects", "layer_surgery_figures",
                 "layer_surgery_summary", "report", "estimate", "why",
                 "clean_tmp")  # fmt: skip
HEAVY = ("torch", "transformers")


def modules() -> list[Path]:
    inside = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
    return [*inside, PACKAGE / "errors.py", PACKAGE / "paths.py"]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides where it leads"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "interpflow" and len(parts) > 1 and parts[1] in ORDER:
                found.add(parts[1])
    return found


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(path) for path in modules()} <= set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    allowed = set(ORDER[: ORDER.index(room) + 1])
    wrong = {
        str(path.relative_to(PACKAGE)): sorted(imported_rooms(path) - allowed)
        for path in modules()
        if room_of(path) == room and imported_rooms(path) - allowed
    }
    assert not wrong


# Rooms within a room, in the order in which they may import each other.
INNER_ORDERS = {
    "engine": ("passes", "proofs", "layers", "lenses", "sweeps", "circuits"),
    "agent": ("rules", "record", "work", "policies"),
    "studies/layer_surgery": ("data", "sweep", "lenses", "effects", "agent"),
    "studies/robustness": ("data", "answers", "costs", "inside", "patches"),
}


@pytest.mark.parametrize(
    ("outer", "room"), [(outer, room) for outer, order in INNER_ORDERS.items() for room in order]
)
def test_an_inner_room_imports_only_those_before_it(outer: str, room: str) -> None:
    order = INNER_ORDERS[outer]
    name = f"interpflow.{outer.replace('/', '.')}"
    later = {f"{name}.{each}" for each in order[order.index(room) + 1 :]}
    wrong = [
        f"{path.relative_to(PACKAGE)}: {node.module}"
        for path in sorted((PACKAGE / outer / room).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and any(f"{node.module}.".startswith(f"{each}.") for each in later)
    ]
    assert not wrong


def test_the_package_itself_imports_no_room() -> None:
    # Every rule imports the package: what it imported, every rule's digest would cover.
    assert not imported_rooms(PACKAGE / "__init__.py")


def heavy_after(program: str) -> str:
    """What of torch and transformers a fresh interpreter holds after a program."""
    ending = f"\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program + ending], capture_output=True, text=True, check=True,
        cwd=SCRIPTS, env={"PYTHONPATH": str(SCRIPTS), "PATH": ""},
    )  # fmt: skip
    return done.stdout.splitlines()[-1].strip()


def imports_of(names: list[str]) -> str:
    return "\n".join(f"import {name}" for name in names)


def test_light_rooms_never_load_torch() -> None:
    names = [
        ".".join(["interpflow", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for path in modules()
        if room_of(path) in WITHOUT_TORCH
    ]
    assert heavy_after(imports_of(names)) == ""


@pytest.mark.parametrize("script", LIGHT_SCRIPTS)
def test_light_scripts_never_load_torch(script: str) -> None:
    tree = ast.parse((SCRIPTS / f"{script}.py").read_text(encoding="utf-8"))
    kept = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    program = "\n".join(ast.unparse(node) for node in kept)
    assert "interpflow" in program
    assert heavy_after(program) == ""


def test_the_check_sees_torch() -> None:
    assert heavy_after("import torch").split() == ["torch"]
