"""The life of a script: its log, its provenance, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from interpflow.paths import PROJECT_DIR

# A stand-in for what Snakemake hands to a script.
PROGRAM = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from interpflow.errors import UserError
from interpflow.workflow.code_digest import code_digest
from interpflow.workflow.job import job

class Named(dict):
    __getattr__ = dict.get

script = Path(__file__)
given = json.loads(sys.argv[1])
snakemake = SimpleNamespace(
    rule="a_rule",
    log=[given.get("log", "logs/a_rule.log")],
    config={},
    params=Named(
        spec=given.get("spec", json.dumps({"seed": 3})),
        code=given.get("code", code_digest(script)),
        lib=json.dumps({"numpy": "2"}),
    ),
    input=Named(given.get("input", {})),
    output=Named(out="results/out.txt"),
    resources=Named(given.get("resources", {})),
)
with job(snakemake, str(script)) as this:
    exec_body = given["body"]
    if exec_body == "fine":
        print("said", this.seed, this.device, this.tokens_per_batch, this.outputs["out"])
        print(json.dumps(this.provenance.to_dict()))
    elif exec_body == "mistake":
        raise UserError("it is wrong", where="a.key", remedy="mend it")
    elif exec_body == "bug":
        raise ValueError("a bug")
    elif exec_body == "interrupt":
        raise KeyboardInterrupt
    elif exec_body == "edit":
        script.write_text(script.read_text() + "\\nEDITED = 1\\n")
"""


def play(directory: Path, **given: object) -> subprocess.CompletedProcess[str]:
    script = directory / "script.py"
    script.write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, str(script), json.dumps(given)], cwd=directory, capture_output=True,
        text=True, env={"PYTHONPATH": str(PROJECT_DIR / "workflow_scripts"), "PATH": ""},
    )  # fmt: skip


def test_a_job_tells_its_work_and_its_cost(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("x")
    (tmp_path / "two.txt").write_text("y")
    done = play(
        tmp_path,
        body="fine",
        input={"a": "in.txt", "many": ["two.txt"]},
        resources={"gpu": 1, "tokens_per_batch": 128},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "said 3 cuda 128 results/out.txt"
    origin = json.loads(lines[1])
    assert set(origin["inputs"]) == {"in.txt", "two.txt"}
    assert origin["seed"] == 3
    assert origin["versions"] == {"numpy": "2"}
    assert "script.py" in origin["modules"]
    assert str(tmp_path) not in json.dumps(origin)
    assert set(json.loads(lines[-1])) == {"start_s", "work_s", "cpu_s", "peak_mb"}
    assert (tmp_path / "logs/a_rule.log").read_text() == done.stdout


def test_a_mistake_is_a_message(tmp_path: Path) -> None:
    done = play(tmp_path, body="mistake")
    assert done.returncode == 1
    assert done.stderr == "a_rule: it is wrong\n  where:  a.key\n  remedy: mend it\n"
    assert (tmp_path / "logs/a_rule.log").read_text() == done.stderr


def test_a_bug_shows_where_it_is(tmp_path: Path) -> None:
    done = play(tmp_path, body="bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: a bug" in (tmp_path / "logs/a_rule.log").read_text()


def test_an_interruption_is_a_message(tmp_path: Path) -> None:
    done = play(tmp_path, body="interrupt")
    assert done.returncode == 1
    assert done.stderr == "a_rule: interrupted\n"


def test_code_changed_before_the_start_is_refused(tmp_path: Path) -> None:
    done = play(tmp_path, body="fine", code="another")
    assert done.returncode == 1
    assert "changed since this run was planned" in done.stderr
    assert "said" not in done.stdout


def test_code_changed_at_work_is_refused(tmp_path: Path) -> None:
    done = play(tmp_path, body="edit")
    assert done.returncode == 1
    assert "changed while the job ran" in done.stderr


def test_a_rule_of_a_study_switched_off_says_so(tmp_path: Path) -> None:
    done = play(tmp_path, body="fine", spec="", code="")
    assert done.returncode == 1
    assert "switches the study of this rule off" in done.stderr


def test_a_log_that_cannot_be_written_hides_no_message(tmp_path: Path) -> None:
    # Every write to it fails as on a full disk.
    done = play(tmp_path, body="mistake", log="/dev/full")
    assert done.returncode == 1
    assert "it is wrong" in done.stderr
    assert "Traceback" not in done.stderr
