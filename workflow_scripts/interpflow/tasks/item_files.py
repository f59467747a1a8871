"""Base items from rows of files and data sets: columns, or a prompt with its variants by name.

Layouts with variants: `[{"normal": ..., "main": ..., "swap": ...}, ...]`, a prompt and its variants
a row ("instruction" may stand for "normal"); and `[{"normal": ...}, {"other": ...}, ...]`, where
the variants of a prompt follow it in rows of their own.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from interpflow.config.identity import content_hash
from interpflow.config.robustness import RobustnessColumns
from interpflow.errors import UserError
from interpflow.tasks.arithmetic import evaluate_expression
from interpflow.tasks.base_items import BaseItem, GoldKind
from interpflow.tasks.item_rows import ItemRow
from interpflow.tasks.typed_numbers import canonical, parse_number
from interpflow.tasks.word_kinds import protected_spans, source_text

PROMPT_KEYS = ("normal", "instruction")
# Keys of such files that name no variant of the prompt.
ROW_IDS = frozenset({"element_index", "index", "id"})
# Keys that belong to rows with columns: as a variant, an answer would be put to the model.
NOT_VARIANTS = frozenset(
    {"answer", "output", "response", "input", "context", "label", "target", "solution"}
)
# A key that fewer rows have, and that nearly is one of most rows' keys, is a slip.
RARE_SHARE, COMMON_SHARE, NEAR = 0.05, 0.5, 0.75
PARAPHRASE = "paraphrase"
FINAL_ANSWER = "####"
KEPT, NOT_KEPT = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})


@dataclass(frozen=True)
class RejectedRow:
    """Why row `row` (from 1) gives no item; with a `variant`, why an item lacks that variant."""

    row: int
    reason: str
    base_id: str = ""
    variant: str = ""


@dataclass(frozen=True)
class LoadedItems:
    """The items of a source in its order, and what did not become one."""

    items: tuple[BaseItem, ...]
    rejected: tuple[RejectedRow, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A prompt as read: its row, question, gold answer and variants (name, text). `reason`: why it
    gives no item, or empty; `base_id` is given once it is known."""

    row: int
    question: Any
    answer: Any
    given: tuple[tuple[str, Any], ...] = ()
    reason: str = ""
    base_id: str = ""

    @property
    def has_gold(self) -> bool:
        """Whether there is a gold answer: one that was read, or the value of an expression."""
        return self.answer is not None or evaluate_expression(self.question) is not None


def load_items(
    rows: Sequence[ItemRow], columns: RobustnessColumns, *, source: str, where: str
) -> LoadedItems:
    """The base items of rows.

    Rows that hold `columns.question` are read by columns, others as prompts with variants by name.
    Empty and repeated prompts, prompts without their gold answer and empty variants are counted in
    `rejected`. Without a column of answers, a question that holds exactly one arithmetic expression
    has its value as gold answer. Raises UserError naming the row where a key is missing or
    misspelt, a prompt is no text, or `keep` is neither 0 nor 1; and where no prompt is left.
    """
    items: list[BaseItem] = []
    rejected: list[RejectedRow] = []
    for entry in read_entries(rows, columns, source=source, where=where):
        if entry.reason:
            rejected.append(RejectedRow(entry.row, entry.reason))
            continue
        items.append(_item(entry, source))
        rejected += [
            RejectedRow(entry.row, "empty prompt", entry.base_id, name)
            for name, text in entry.given
            if not (text or "").strip()
        ]
    return LoadedItems(tuple(items), tuple(rejected))


def read_entries(
    rows: Sequence[ItemRow], columns: RobustnessColumns, *, source: str, where: str
) -> list[Entry]:
    """What `load_items` makes items of, and what it rejects: all its checks in a tenth of the time.

    Raises UserError as `load_items` does.
    """
    if not rows:
        raise UserError("there are no rows", where=where)
    if any(columns.question in row for row in rows):
        entries = _by_columns(rows, columns, where)
    elif _is_sequence(rows):
        entries = _by_sequence(rows, where)
    else:
        entries = _by_name(rows, columns, where)
    checked = _checked(entries, source, where, has_answers=columns.answer is not None)
    if all(entry.reason for entry in checked):
        reasons = Counter(entry.reason for entry in checked)
        shown = ", ".join(f"{n} rows: {reason}" for reason, n in reasons.most_common())
        raise UserError(f"no prompt can be used ({shown})", where=where)
    return checked


def _by_columns(rows: Sequence[ItemRow], columns: RobustnessColumns, where: str) -> Iterable[Entry]:
    wanted = [columns.question, columns.answer, columns.paraphrase, columns.keep]
    for number, row in enumerate(rows, 1):
        for name in wanted:
            if name is not None and name not in row:
                raise _missing_key(number, name, row, where)
        given: tuple[tuple[str, Any], ...] = ()
        if columns.paraphrase is not None:
            given = ((PARAPHRASE, row[columns.paraphrase]),)
        kept = columns.keep is None or _is_kept(row[columns.keep], number, columns.keep, where)
        yield Entry(
            number, row[columns.question], row[columns.answer] if columns.answer else None, given,
            reason="" if kept else "no paraphrase by its own mark",
        )  # fmt: skip


def _is_kept(value: Any, number: int, name: str, where: str) -> bool:
    spelled = str(value).strip().lower()
    if spelled not in KEPT | NOT_KEPT:
        raise UserError(f"row {number}: {name!r} is {value!r}, neither 0 nor 1", where=where)
    return spelled in KEPT


def _is_sequence(rows: Sequence[ItemRow]) -> bool:
    names = {name for row in rows for name in row}
    return all(len(row) == 1 for row in rows) and bool(names & {*PROMPT_KEYS}) and len(names) > 1


def _by_sequence(rows: Sequence[ItemRow], where: str) -> Iterable[Entry]:
    [(first, _)] = rows[0].items()
    if first not in PROMPT_KEYS:
        raise UserError(
            f"row 1 holds {first!r}, a variant of no prompt", where=where,
            remedy=f"begin with {PROMPT_KEYS[0]!r}: the variants of a prompt follow it",
        )  # fmt: skip
    names = [(number, name) for number, row in enumerate(rows, 1) for name in row]
    _check_slips(names, sum(name == first for _, name in names), where)
    entry: Entry | None = None
    for (number, name), row in zip(names, rows, strict=True):
        if name == first:
            if entry is not None:
                yield entry
            entry = Entry(number, row[name], None)
        elif entry is not None:
            entry = replace(entry, given=(*entry.given, (name, row[name])))
    if entry is not None:
        yield entry


def _by_name(rows: Sequence[ItemRow], columns: RobustnessColumns, where: str) -> Iterable[Entry]:
    present = [key for key in PROMPT_KEYS if any(key in row for row in rows)]
    if not present:
        raise _missing_key(1, columns.question, rows[0], where)
    prompt = present[0]
    others = {prompt, columns.answer} | ROW_IDS
    names = [
        (number, name) for number, row in enumerate(rows, 1) for name in row if name not in others
    ]
    for number, row in enumerate(rows, 1):
        for name in (prompt, columns.answer):
            if name is not None and name not in row:
                raise _missing_key(number, name, row, where)
    for number, name in names:
        if name.lower() in NOT_VARIANTS:
            raise UserError(
                f"row {number}: {name!r} is no variant of {prompt!r}", where=where,
                remedy=f"name the columns: robustness.data.columns.question: {prompt}, and "
                f"columns.answer or leave {name!r} out of the file",
            )  # fmt: skip
    _check_slips(names, len(rows), where)
    variants = list(dict.fromkeys(name for _, name in names))
    for number, row in enumerate(rows, 1):
        yield Entry(
            number, row[prompt], row[columns.answer] if columns.answer else None,
            tuple((name, row.get(name)) for name in variants),
        )  # fmt: skip


def _check_slips(names: Sequence[tuple[int, str]], n_prompts: int, where: str) -> None:
    """Raise UserError for a rare key that nearly is a common one: its text would be lost."""
    counts = Counter(name for _, name in names)
    common = [name for name, n in counts.items() if n >= COMMON_SHARE * n_prompts]
    for number, name in names:
        if name not in common and counts[name] <= max(1, RARE_SHARE * n_prompts):
            near = difflib.get_close_matches(name, common, n=1, cutoff=NEAR)
            if near:
                raise UserError(
                    f"row {number}: the key {name!r} stands in {counts[name]} of {n_prompts} rows",
                    where=where, remedy=f"did you mean {near[0]!r}?",
                )  # fmt: skip


def _missing_key(number: int, name: str, row: ItemRow, where: str) -> UserError:
    near = difflib.get_close_matches(name, [str(key) for key in row], n=1, cutoff=0.5)
    keys = ", ".join(map(repr, row)) or "none"
    return UserError(
        f"row {number} has no {name!r}", where=where,
        remedy=f"did you mean {near[0]!r}?" if near else f"its keys are {keys}; name the column "
        "of the prompts in robustness.data.columns",
    )  # fmt: skip


def _checked(
    entries: Iterable[Entry], source: str, where: str, *, has_answers: bool
) -> list[Entry]:
    seen: set[str] = set()
    checked = []
    for entry in entries:
        for text in (entry.question, *(variant for _, variant in entry.given)):
            if text is not None and not isinstance(text, str):
                raise UserError(
                    f"row {entry.row}: {text!r} is no text", where=where,
                    remedy="prompts and their variants are texts, in quotes",
                )  # fmt: skip
        if isinstance(entry.answer, (list, dict)):
            raise UserError(
                f"row {entry.row}: the gold answer {entry.answer!r:.60} is neither text nor number",
                where=where,
                remedy="name a column of single answers in robustness.data.columns.answer",
            )
        question = (entry.question or "").strip()
        base_id = content_hash([source, " ".join(question.split()).casefold()])
        reason = entry.reason
        if not question:
            reason = "empty prompt"
        elif not reason and base_id in seen:
            reason = "repeated prompt"
        elif not reason and has_answers and _is_missing(entry.answer):
            reason = "no gold answer"
        if not reason:
            seen.add(base_id)
        checked.append(replace(entry, question=question, reason=reason, base_id=base_id))
    return checked


def _item(entry: Entry, source: str) -> BaseItem:
    gold, kind, continuation = _gold(entry.question, entry.answer)
    return BaseItem(
        base_id=entry.base_id,
        family_id=entry.base_id,
        template_id=content_hash(["wording", wording(entry.question)]),
        source=source,
        question=source_text(entry.question, answer=gold if kind == "text" else None),
        gold=gold,
        gold_kind=kind,
        continuation=continuation,
        given=tuple((name, text.strip()) for name, text in entry.given if (text or "").strip()),
    )


def _final(answer: Any) -> str:
    """An answer as text: of a worked solution that marks its end (GSM8K), what follows the mark."""
    return str(answer).rpartition(FINAL_ANSWER)[2].strip()


def _is_missing(answer: Any) -> bool:
    """Nothing, blanks, or what tables of numbers hold where one is missing."""
    return answer is None or answer != answer or not _final(answer)


def _gold(question: str, answer: Any) -> tuple[str | None, GoldKind, str | None]:
    if answer is None:
        value = evaluate_expression(question)
        if value is None:
            return None, "", None
        return canonical(value), "number", f" {written(value)}"
    text = _final(answer)
    value = parse_number(text)
    return (text, "text", f" {text}") if value is None else (canonical(value), "number", f" {text}")


def wording(question: str) -> str:
    """A question with its numbers and signs left out: equal for exercises of one stem."""
    pieces, at = [], 0
    for start, end in protected_spans(question):
        pieces += [question[at:start], "#"]
        at = end
    return " ".join("".join([*pieces, question[at:]]).split()).casefold()


def written(value: Fraction) -> str:
    """A number as people write it: a decimal where it ends, else a fraction."""
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    if rest > 1 or value.denominator == 1:
        return str(value)
    places = 1
    while (value * 10**places).denominator > 1:
        places += 1
    sign, digits = "-" * (value < 0), str(abs(int(value * 10**places))).rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}"
