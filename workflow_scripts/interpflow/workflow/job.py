"""The life of a rule's script: log, code check, provenance, and errors as messages."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil

from interpflow.errors import UserError
from interpflow.paths import PROJECT_DIR
from interpflow.tables.provenance import Provenance, file_digest
from interpflow.workflow.code_digest import code_digest, module_digests


@dataclass(frozen=True)
class Job:
    """What a rule's script is given: files by name, the spec, and the provenance to write.

    `device` and `tokens_per_batch` come from the rule's resources: they change no result, so a
    change of them reruns nothing. Nor does a change of `config`, the whole of it as it was
    written: what results depend on is read from `spec`.
    """

    rule: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, str]
    provenance: Provenance
    device: str
    tokens_per_batch: int
    config: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.spec["seed"])


@contextmanager
def job(snakemake: Any, script: str) -> Iterator[Job]:
    """Run the body as the job that Snakemake started; `script` is the script's own `__file__`.

    All output goes to the rule's log as well. A UserError ends the process with its message and
    exit code 1. A script whose code changed since the DAG was made, or while it ran, fails.
    """
    started = time.perf_counter()
    log_path = Path(str(snakemake.log[0]))
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log:
        _tee(log)
        _set_up_logging()
        try:
            _check_configured(snakemake)
            _check_code(snakemake, script, "since this run was planned")
            yield _job(snakemake, script)
            _check_code(snakemake, script, "while the job ran")
        except UserError as error:
            print(f"{snakemake.rule}: {error}", file=sys.stderr)
            _end(1)
        except KeyboardInterrupt:
            print(f"{snakemake.rule}: interrupted", file=sys.stderr)
            _end(1)
        except BaseException:
            traceback.print_exc()
            _end(1)
        print(json.dumps(_cost(started), sort_keys=True))
        sys.stdout.flush()


def _job(snakemake: Any, script: str) -> Job:
    spec = json.loads(snakemake.params.spec)
    inputs = dict(snakemake.input.items())
    return Job(
        rule=snakemake.rule,
        spec=spec,
        inputs=inputs,
        outputs={name: str(path) for name, path in snakemake.output.items()},
        provenance=Provenance(
            rule=snakemake.rule,
            spec=spec,
            code=snakemake.params.code,
            modules=module_digests(script),
            inputs={_public_name(path): file_digest(path) for path in _flat(inputs)},
            seed=spec.get("seed"),
            versions=json.loads(snakemake.params.lib),
        ),
        device="cuda" if snakemake.resources.get("gpu", 0) else "cpu",
        tokens_per_batch=int(snakemake.resources.get("tokens_per_batch", 8192)),
        config=snakemake.config,
    )


def _flat(inputs: Mapping[str, Any]) -> list[str]:
    paths: list[str] = []
    for value in inputs.values():
        paths += [str(value)] if isinstance(value, str | Path) else [str(path) for path in value]
    return paths


def _public_name(path: str) -> str:
    """The path as seen from the run or from the project: never a machine's own path."""
    absolute = Path(path).resolve()
    for root in (Path.cwd(), PROJECT_DIR):
        if absolute.is_relative_to(root):
            return absolute.relative_to(root).as_posix()
    return absolute.name


def _check_configured(snakemake: Any) -> None:
    if not snakemake.params.spec:
        raise UserError(
            "the config switches the study of this rule off",
            where=str(snakemake.rule),
            remedy="give the study a section in the config",
        )


def _check_code(snakemake: Any, script: str, when: str) -> None:
    if code_digest(script) != snakemake.params.code:
        raise UserError(
            f"the code of this rule changed {when}; its results would not be what they claim",
            where=Path(script).name,
            remedy="run the same command again",
        )


def _cost(started: float) -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    alive = time.time() - psutil.Process().create_time()
    worked = time.perf_counter() - started
    return {
        "start_s": round(alive - worked, 2),
        "work_s": round(worked, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def _set_up_logging() -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )


class _Tee:
    """A stream that writes to the log and to the stream it replaces."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        # On a full disk the log cannot be written, and the message that says so must get through.
        with suppress(OSError):
            self._log.write(text)
            self._log.flush()
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _tee(log: TextIO) -> None:
    sys.stdout, sys.stderr = _Tee(sys.stdout, log), _Tee(sys.stderr, log)  # type: ignore[assignment]


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: Snakemake's preamble would print a traceback of the exit itself.
    os._exit(code)
