"""The real workflow, copied so that tests may edit it, and runs of it that tests may break.

A job refuses to write when its code changed since the run was planned; only a copy keeps these
tests apart from edits of the checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
COPIED = ("Snakefile", "rules", "workflow_scripts", "profiles", "envs", "resources", "docs")
HOOKS = Path(__file__).resolve().parent / "hooks"
TIME_LIMIT_S = 600  # of one command; a hang must fail, not stop the suite
MODEL = "tiny"

STUDY_FILES = ("examples.parquet", "pairs.parquet", "validation.parquet", "validation.json",
               "comparison.parquet", "summary.json")  # fmt: skip
FIGURES = ("accuracy", "confusion", "responses", "position_map", "layer_importance",
           "running_count")  # fmt: skip
MODEL_FILES = ("answers.parquet", "activations", "benchmark.parquet", "confusion.parquet",
               "benchmark.json", "pairs.parquet", "pair_effects.parquet", "gates.json",
               "mediation.parquet", "effects.parquet", "running_count.parquet", "probes.parquet",
               "verdict.json",
               *(f"figures/{figure}.svg" for figure in FIGURES))  # fmt: skip


PARAMETERS_PROGRAM = """
import json
from interpflow.config.load import load_config
from interpflow.workflow.plan import Plan
stages = Plan(load_config("config.yaml")).stages()
print(json.dumps({f"{s.rule} {s.spec.get('model', '')}": str(s.parameters) for s in stages}))
"""


def public_files(*models: str) -> list[str]:
    """Every artifact of `snakemake all`, written out by hand."""
    return [
        "results/report/index.html",
        *[f"results/counting/{file}" for file in STUDY_FILES],
        *[f"results/models/{model}/manifest.json" for model in models],
        *[f"results/counting/{model}/{file}" for model in models for file in MODEL_FILES],
    ]


def copy_project(target: Path) -> Path:
    """A copy of everything that a run reads."""
    target.mkdir(parents=True)
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.tmp")
            )
        else:
            shutil.copy2(source, target / name)
    return target


def tiny_config(model_directory: Path, *models: str) -> dict[str, Any]:
    """A study of a random model that ends in seconds; its interventions are refused."""
    return {
        "seed": 0,
        "models": {name: {"local": str(model_directory)} for name in models or (MODEL,)},
        "execution": {"device": "cpu", "tokens_per_batch": 4096},
        "counting": {
            "data": {
                "categories": ["bird", "fruit"],
                "lengths": {"min": 3, "max": 4},
                "templates": ["parentheses"],
            },
            # Gates on balance are for studies of the usual size.
            "validation": {
                "max_imbalance": 1.0,
                "max_association": 0.9,
                "max_duplicate_share": 1.0,
                "max_pair_imbalance": 5.0,
            },
            "benchmark": {"n_permutations": 99, "max_new_tokens": 2},
            "pairs": {
                "n_minimal": 8,
                "n_prefix": 8,
                "lengths": {"min": 3, "max": 4},
                "templates": ["parentheses"],
            },
            "mediation": {"n_permutations": 99, "probe_controls": 19, "window": 2},
        },
    }


@dataclass
class Run:
    """A working directory with its config; `snakemake(...)` runs the real command in it."""

    project: Path
    directory: Path
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def write_config(self, config: Mapping[str, Any] | None = None) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self.config = dict(config)
        text = yaml.safe_dump(self.config, sort_keys=False)
        (self.directory / "config.yaml").write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [
            str(Path(sys.executable).parent / "snakemake"),
            *("-s", str(self.project / "Snakefile")),
            *("--directory", str(self.directory)),
            *("--configfile", str(self.directory / "config.yaml")),
            *arguments,
        ]

    def variables(self, **extra: str) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        # Bytecode of an edited file could outlive the edit within one second.
        return {
            **plain, "PYTHONPATH": str(HOOKS), "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1", **self.environment, **extra,
        }  # fmt: skip

    def snakemake(
        self, *arguments: str, succeeds: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command; output and messages are in `stdout` together."""
        done = subprocess.run(
            self.command(*arguments), env=self.variables(**variables), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIME_LIMIT_S,
        )  # fmt: skip
        if succeeds:
            assert done.returncode == 0, done.stdout[-6000:]
        return done

    def planned(self, *arguments: str) -> dict[str, str]:
        """Rule → reasons of its jobs, as `snakemake -n` says them."""
        text = self.snakemake("-n", *arguments).stdout
        found: dict[str, str] = {}
        for block in re.split(r"\n(?=(?:local)?rule \w+:)", text)[1:]:
            rule = re.match(r"(?:local)?rule (\w+):", block)
            reason = re.search(r"^    reason: (.*)$", block, re.MULTILINE)
            assert rule, block
            said = reason.group(1) if reason else ""
            found[rule.group(1)] = f"{found.get(rule.group(1), '')} {said}".strip()
        if not found:
            assert "Nothing to be done" in text, text
        return found

    def parameters(self) -> dict[str, str]:
        """Rule and model → the parameters that Snakemake is given for that job."""
        done = subprocess.run(
            [sys.executable, "-c", PARAMETERS_PROGRAM], cwd=self.directory, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(self.project / "workflow_scripts")}, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    def artifacts(self) -> dict[str, str]:
        """Path → SHA-256 of every file under results/, unfinished ones left out."""
        root = self.directory / "results"
        return {
            str(path.relative_to(self.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".tmp-" not in str(path) and path.name != ".snakemake_timestamp"
        }

    def leftovers(self) -> list[Path]:
        return sorted((self.directory / "results").rglob(".*.tmp-*"))

    def fork(self, directory: Path) -> Run:
        """A copy of the directory as it stands, time stamps and Snakemake's records included."""
        shutil.copytree(self.directory, directory)
        return Run(self.project, directory, dict(self.config), dict(self.environment))
