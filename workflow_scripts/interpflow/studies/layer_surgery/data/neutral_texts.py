"""Neutral texts: documents whose loss is measured, that lenses train on, that agents test on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interpflow.config.identity import Split, content_hash, derived_seed, split_of
from interpflow.config.layer_surgery import SurgeryTexts
from interpflow.errors import UserError
from interpflow.tasks.nlp.stories import story

Use = Literal["measure", "lens", "agent"]
# Lenses see nothing that tests read, and agents confirm on what nobody looked at.
SPLIT_OF_USE: dict[Use, Split | None] = {"measure": None, "lens": "discover", "agent": "confirm"}
# Stories drawn at most for each one wanted: a split is a fifth of them or more.
MAX_DRAWS = 50


@dataclass(frozen=True)
class Document:
    """A text, its split by content, and the one use that it has."""

    text: str
    use: Use

    @property
    def document_id(self) -> str:
        return content_hash(["document", self.text])

    def to_row(self) -> dict[str, Any]:
        """A row of the table `surgery_texts`."""
        return {
            "document_id": self.document_id,
            "split": split_of(self.document_id),
            "use": self.use,
            "text": self.text,
        }


@dataclass(frozen=True)
class StudyTexts:
    """Documents of each use, and how many there were and were left out, by reason."""

    documents: tuple[Document, ...]
    n_found: int | None
    wanted: dict[Use, int]
    left_out: dict[str, int]


def study_texts(texts: SurgeryTexts, seed: int) -> StudyTexts:
    """Documents for each use, no text in two: `n_documents` of all splits to measure, then
    `n_lens` of the split `discover`, then `n_agent` of the split `confirm`.

    The documents of a file are taken in an order drawn by `seed`; of a file that has fewer than
    are wanted, each use gets the same share of its wish where its split has them. Raises UserError
    for a file that cannot be read or has no documents to measure.
    """
    wanted: dict[Use, int] = {
        "measure": texts.n_documents, "lens": texts.n_lens, "agent": texts.n_agent
    }  # fmt: skip
    order = derived_seed(seed, "layer_surgery", "texts")
    if texts.path is None:
        n_draws = MAX_DRAWS * sum(wanted.values())
        drawn = (story(derived_seed(order, number)) for number in range(n_draws))
        return StudyTexts(tuple(assigned(drawn, wanted)), None, wanted, {})
    where = Path(texts.path).expanduser()
    found = [document.strip() for document in read_documents(where)]
    distinct = list(dict.fromkeys(document for document in found if document))
    if not distinct:
        raise UserError("the file holds no document", where=str(where),
                        remedy='write a document a line, or {"text": ...} in .jsonl')  # fmt: skip
    random.Random(order).shuffle(distinct)
    share = min(1.0, len(distinct) / sum(wanted.values()))
    got: dict[Use, int] = {use: max(round(share * n), min(n, 1)) for use, n in wanted.items()}
    documents = tuple(assigned(distinct, got))
    n_empty = sum(not document for document in found)
    left_out = {
        "empty": n_empty,
        "repeated": len(found) - n_empty - len(distinct),
        "not needed": len(distinct) - len(documents),
    }
    return StudyTexts(documents, len(found), wanted, {k: n for k, n in left_out.items() if n})


def assigned(texts: Iterable[str], wanted: dict[Use, int]) -> Iterator[Document]:
    """Documents in order of their uses, each text used once for the first use that lacks it."""
    lists: dict[Use, list[Document]] = {use: [] for use in wanted}
    seen: set[str] = set()
    for text in texts:
        open_uses: list[Use] = [use for use, n in wanted.items() if len(lists[use]) < n]
        if not open_uses:
            break
        if text in seen:
            continue
        for use in open_uses:
            document = Document(text, use)
            if SPLIT_OF_USE[use] in (None, split_of(document.document_id)):
                seen.add(text)
                lists[use].append(document)
                break
    for documents in lists.values():
        yield from documents


def read_documents(path: Path) -> Iterator[str]:
    """The documents of a .txt file, one a line, or the "text" of each line of a .jsonl file.

    Raises UserError naming file and line for a line that is no JSON object with a text.
    """
    ending = path.suffix.lower()
    if ending not in (".txt", ".jsonl"):
        raise UserError(f"a file of texts cannot end in {path.suffix!r}", where=str(path),
                        remedy="use .txt (a document a line) or .jsonl")  # fmt: skip
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if ending == ".txt":
                    yield line
                elif line.strip():
                    yield _text_of(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path),
                        remedy="check layer_surgery.texts.path") from None  # fmt: skip
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the file cannot be read: {error}", where=str(path)) from error


def _text_of(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the line is not valid JSON: {error}", where=where) from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UserError('the line has no "text"', where=where, remedy='write {"text": "..."}')
    return text
