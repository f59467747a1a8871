"""Put on PYTHONPATH of a run: lets a test look into jobs, hold them, or kill them.

Set by environment variables, so that the workflow itself knows nothing of it:
INTERPFLOW_TEST_MODULES  directory; each job leaves there which library modules it had loaded
INTERPFLOW_TEST_PAUSE    "script:start" or "script:write" and a directory, joined by "@": that job
                         touches <directory>/paused and waits for <directory>/resume
INTERPFLOW_TEST_KILL     "job:n@directory" or "group:n@directory": SIGKILL to the job alone or to
                         the whole process group before the n-th file of the run gets its name
INTERPFLOW_TEST_COUNT    directory whose file `renames` grows by a byte per file that gets its name
"""

import atexit
import json
import os
import signal
import sys
import time

_SCRIPT = os.path.basename(sys.orig_argv[-1] if len(sys.orig_argv) > 1 else "")
_IS_JOB = _SCRIPT.startswith("tmp") and _SCRIPT.count(".") >= 2
_RULE_SCRIPT = _SCRIPT.split(".", 1)[-1]
_MARK = ".tmp-"


def _record_modules(directory):
    loaded = sorted(name for name in sys.modules if name.split(".")[0] == "interpflow")
    heavy = [name for name in ("torch", "transformers") if name in sys.modules]
    with open(os.path.join(directory, f"{_RULE_SCRIPT}-{os.getpid()}.json"), "w") as handle:
        json.dump({"script": _RULE_SCRIPT, "modules": loaded, "heavy": heavy}, handle)


def _pause(directory):
    if os.path.exists(os.path.join(directory, "paused")):
        return
    with open(os.path.join(directory, "paused"), "w"):
        pass
    while not os.path.exists(os.path.join(directory, "resume")):
        time.sleep(0.02)


def _count(directory):
    path = os.path.join(directory, "renames")
    with open(path, "ab") as handle:
        handle.write(b".")
    return os.path.getsize(path)


def _before_rename(action):
    def hook(event, arguments):
        # pathlib and shutil rename too; only files that an artifact's writer made are marked.
        if event == "os.rename" and _MARK in os.fspath(arguments[0]):
            action()

    sys.addaudithook(hook)


def _kill(order):
    what, directory = order.split("@", 1)
    whom, number = what.split(":")

    def action():
        if _count(directory) == int(number):
            target = -os.getpgid(0) if whom == "group" else os.getpid()
            os.kill(target, signal.SIGKILL)
            time.sleep(10)

    _before_rename(action)


if _IS_JOB:
    if "INTERPFLOW_TEST_MODULES" in os.environ:
        atexit.register(_record_modules, os.environ["INTERPFLOW_TEST_MODULES"])
    if "INTERPFLOW_TEST_COUNT" in os.environ:
        _before_rename(lambda: _count(os.environ["INTERPFLOW_TEST_COUNT"]))
    if "INTERPFLOW_TEST_KILL" in os.environ:
        _kill(os.environ["INTERPFLOW_TEST_KILL"])
    if "INTERPFLOW_TEST_PAUSE" in os.environ:
        _what, _directory = os.environ["INTERPFLOW_TEST_PAUSE"].split("@", 1)
        _script, _when = _what.split(":")
        if _script == _RULE_SCRIPT and _when == "start":
            _pause(_directory)
        elif _script == _RULE_SCRIPT:
            _before_rename(lambda: _pause(_directory))
