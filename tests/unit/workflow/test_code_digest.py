"""The digest of a script: every change of behaviour that it can reach, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interpflow.workflow import code_digest as digest_module
from interpflow.workflow.code_digest import code_digest, module_digests

FILES = {
    "script.py": "from lib.a import f\nimport lib.b.c\nimport json\nf()\n",
    "lib/__init__.py": "",
    "lib/a.py": '"""Doc."""\nfrom lib import d\nfrom . import g\n\ndef f():\n    """Doc."""\n'
    "    from lib.h import late\n    return late\n",
    "lib/b/__init__.py": "",
    "lib/b/c.py": "from ..e import x\n",
    "lib/d.py": "D = 1\n",
    "lib/e.py": "x = 1\n",
    "lib/g.py": "G = 1\n",
    "lib/h.py": "late = 1\n",
    "lib/unused.py": "U = 1\n",
    "lib/b/unused.py": "U = 1\n",
}
REACHED = {"lib/__init__.py", "lib/a.py", "lib/b/__init__.py", "lib/b/c.py", "lib/d.py",
           "lib/e.py", "lib/g.py", "lib/h.py"}  # fmt: skip


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(digest_module, "_LIBRARY_DIR", tmp_path)
    return tmp_path


def test_the_closure_is_what_imports_reach(library: Path) -> None:
    assert set(module_digests(library / "script.py")) == {
        "script.py", "lib", "lib.a", "lib.b", "lib.b.c", "lib.d", "lib.e", "lib.g", "lib.h",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_edit_changes_the_digest_where_it_is_reached(library: Path, name: str) -> None:
    before = code_digest(library / "script.py")
    path = library / name
    stamp = path.stat()
    path.write_text(path.read_text() + "\nEDITED = 1\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # rsync and tar keep times
    changed = code_digest(library / "script.py") != before
    assert changed == (name in REACHED or name == "script.py")


@pytest.mark.parametrize(
    "text",
    [
        '"""Other."""\nfrom lib import d\nfrom . import g\n\ndef f():\n    """Other."""\n'
        "    from lib.h import late\n    return late\n",
        '# A remark.\n"""Doc."""\nfrom lib import d\nfrom . import g\n\n\ndef f():\n'
        "    from lib.h import late  # why\n\n    return (late)\n",
    ],
)
def test_docstrings_comments_and_layout_do_not_count(library: Path, text: str) -> None:
    before = code_digest(library / "script.py")
    (library / "lib/a.py").write_text(text)
    assert code_digest(library / "script.py") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("D = 1", "D = 2"), ("D = 1", "D = 1.0"), ("D = 1", "D = '1'"), ("D = 1", "'D' 'text'")],
)
def test_a_changed_value_counts(library: Path, old: str, new: str) -> None:
    before = code_digest(library / "script.py")
    path = library / "lib/d.py"
    path.write_text(path.read_text().replace(old, new))
    assert code_digest(library / "script.py") != before


def test_a_text_that_is_no_docstring_counts(library: Path) -> None:
    path = library / "lib/d.py"
    path.write_text("def f():\n    x = 1\n    return 'a'\n")
    before = code_digest(library / "script.py")
    path.write_text("def f():\n    x = 1\n    return 'b'\n")
    assert code_digest(library / "script.py") != before


def test_a_new_module_that_shadows_counts(library: Path) -> None:
    (library / "lib/d.py").unlink()
    without = code_digest(library / "script.py")
    (library / "lib/d").mkdir()
    (library / "lib/d/__init__.py").write_text("D = 1\n")
    assert code_digest(library / "script.py") != without


def test_the_digest_does_not_depend_on_the_place(library: Path, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    here = code_digest(library / "script.py")
    other = tmp_path_factory.mktemp("elsewhere")
    for name, text in FILES.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(text)
    digest_module._LIBRARY_DIR = other  # the fixture puts it back
    assert code_digest(other / "script.py") == here
