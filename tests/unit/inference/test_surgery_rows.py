"""Items and documents as rows of tokens, and the reasons for those that have no score."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from interpflow.inference.surgery import code_version
from interpflow.inference.surgery.code_version import measuring_code, source_digest
from interpflow.inference.surgery.rows import answer_rows, text_rows
from interpflow.paths import RESOURCES_DIR


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(RESOURCES_DIR / "reference" / "word_problems")


class Letters:
    """A tokenizer of letters in which "ab" is one token and "~" is none."""

    is_fast, name_or_path = True, "letters"

    def __call__(self, texts: Any, add_special_tokens: bool = False, **_: Any) -> dict[str, Any]:
        several = isinstance(texts, list)
        ids, spans = [], []
        for text in texts if several else [texts]:
            cut = text.replace("~", "").replace("ab", "#")
            ids.append(([1] if add_special_tokens else []) + [ord(letter) for letter in cut])
            spans.append([(0, 1)] * len(ids[-1]))
        if not several:
            return {"input_ids": ids[0], "offset_mapping": spans[0]}
        return {"input_ids": ids, "offset_mapping": spans}


def item(name: str, prompt: str, answer: str) -> dict[str, str]:
    return {"example_id": name, "prompt": prompt, "answer": answer}


def test_all_tokens_of_an_answer_are_scored_and_no_more_is_run() -> None:
    rows = answer_rows(Letters(), [item("i", "xy", "zc")], None)
    (row,) = rows.rows.values()
    # One special token comes first.
    assert row.tokens == (1, ord("x"), ord("y"), ord("z"))
    assert (row.places, row.targets, row.prompt) == ((2, 3), (ord("z"), ord("c")), 3)


def test_unscored_items_keep_their_reason() -> None:
    items = [
        item("good", "xy", "z"), item("nothing", "xy", "~"), item("empty", "xy", ""),
        item("merged", "xa", "b"), item("long", "xyxyxyxy", "zz"),
    ]  # fmt: skip
    found = answer_rows(Letters(), items, 9)
    assert list(found.rows) == ["good"]
    assert found.unscored == {
        "nothing": "empty_answer", "empty": "empty_answer", "merged": "merged", "long": "too_long"
    }  # fmt: skip


def test_the_first_token_of_a_document_is_not_scored() -> None:
    texts = [{"document_id": "d", "text": "uvwxyz"}, {"document_id": "s", "text": "u"}]
    found = text_rows(Letters(), texts, 4, None)
    row = found.rows["d"]
    assert row.tokens == (1, ord("u"), ord("v"), ord("w"))
    assert (row.places, row.targets) == ((1, 2, 3), (ord("v"), ord("w"), ord("x")))
    assert found.unscored == {"s": "too_short"}
    assert len(text_rows(Letters(), texts, 9, 4).rows["d"].targets) == 2


def test_a_real_tokenizer() -> None:
    rows = answer_rows(tokenizer(), [item("i", "Tom has 3", " apples .")], None)
    (row,) = rows.rows.values()
    assert tokenizer().decode(row.targets).split() == ["apples", "."]


def test_the_digest_of_the_code_sees_code_only(tmp_path: Path) -> None:
    path = tmp_path / "measure.py"
    path.write_text('"""One."""\ndef f():\n    """Two."""\n    return 1  # three\n')
    before = source_digest([path])
    path.write_text('"""Other."""\n\n\ndef f():\n    return 1\n')
    assert source_digest([path]) == before
    path.write_text('"""Other."""\n\n\ndef f():\n    return 2\n')
    assert source_digest([path]) != before


def test_the_digest_depends_on_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_digest([])
    monkeypatch.setattr(code_version, "package_versions", lambda _names: {"torch": "0"})
    assert source_digest([]) != before


def test_the_digest_of_the_measuring_code_is_sixteen_digits():
    assert len(measuring_code()) == 16
