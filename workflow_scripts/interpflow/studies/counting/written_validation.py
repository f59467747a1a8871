"""One round of judging: every word of the written lists, lexicon first, then the validators."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.counting import CountingData, CountingLlmData
from interpflow.config.identity import derived_seed
from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.config.model import ModelSettings
from interpflow.llm.asking import answer
from interpflow.stats.duplicates import jaccard
from interpflow.studies.counting.written_asks import membership_ask, membership_of
from interpflow.studies.counting.written_state import Row, WrittenState, state_before
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.counting.labelled_lists import LabelledList, LabelledWord, fault_of
from interpflow.tasks.counting.lexicon import Lexicon
from interpflow.tasks.counting.membership import Membership, decide, lexicon_verdict

Question = tuple[str, str]  # category, word


def judge_round(
    round_number: int,
    data: CountingData,
    seed: int,
    llm: LlmSettings,
    models: dict[str, ModelSettings],
    *,
    lexicon_path: str | None,
    templates_path: str | None,
    lists_path: Path | str,
    earlier_lists: Sequence[Path | str],
    earlier_verdicts: Sequence[Path | str],
    words_path: Path | str,
    verdicts_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `counting_word_verdicts` and `counting_list_verdicts` of one round.

    The first round also puts words of known membership to the validators, to measure them.
    """
    lexicon, state = state_before(
        data, seed, lexicon_path=lexicon_path, templates_path=templates_path,
        earlier_lists=earlier_lists, earlier_verdicts=earlier_verdicts,
    )  # fmt: skip
    lists = read_rows(lists_path, "counting_written_lists")
    known: dict[Question, Membership | None] = {
        (row["category"], word): lexicon_verdict(word, row["category"], lexicon)
        for row in lists
        for word in row["words"]
    }
    open_questions = [question for question, verdict in known.items() if verdict is None]
    measure = round_number == 1 and bool(lists)
    gold = gold_questions(state.design.categories, lexicon, data.llm, seed) if measure else {}
    votes = ask_validators(
        [*open_questions, *gold], lexicon, lexicon_path, llm, models, round_number
    )
    rows = word_rows(known, gold, votes, llm.roles.validator, round_number)
    truth = {(row["category"], row["word"]): row["verdict"] for row in rows if not row["is_gold"]}
    verdicts = accept(lists, truth, state, data, round_number)
    write_table(words_path, "counting_word_verdicts", rows, provenance)
    write_table(verdicts_path, "counting_list_verdicts", verdicts, provenance)
    n = sum(row["accepted"] for row in verdicts)
    print(f"round {round_number}: {len(rows)} words judged, {n} of {len(verdicts)} lists accepted")


def gold_questions(
    categories: Sequence[str], lexicon: Lexicon, settings: CountingLlmData, seed: int
) -> dict[Question, Membership]:
    """Words whose membership the lexicon knows, half of them members, spread over categories."""
    rng = random.Random(derived_seed(seed, "counting", "gold"))
    gold: dict[Question, Membership] = {}
    pools: tuple[tuple[Membership, Callable[[str], tuple[str, ...]]], ...] = (
        ("yes", lexicon.members),
        ("no", lexicon.non_members),
    )
    for verdict, pool in pools:
        shuffled = {category: rng.sample(pool(category), len(pool(category)))
                    for category in categories}  # fmt: skip
        turns = [
            (category, words[turn])
            for turn in range(max(map(len, shuffled.values()), default=0))
            for category, words in shuffled.items()
            if turn < len(words)
        ]
        gold |= dict.fromkeys(turns[: settings.gold_words], verdict)
    return gold


def ask_validators(
    questions: Sequence[Question],
    lexicon: Lexicon,
    lexicon_path: str | None,
    llm: LlmSettings,
    models: dict[str, ModelSettings],
    round_number: int,
) -> dict[Question, list[Membership]]:
    """Votes on each question, in the order of the validators; each question is asked once."""
    asks = {
        question: membership_ask(word, category, lexicon, lexicon_path)
        for question in dict.fromkeys(questions)
        for category, word in [question]
    }
    question_of = {ask.id: question for question, ask in asks.items()}
    votes: dict[Question, list[Membership]] = defaultdict(list)
    if not asks:
        return votes
    for judge in llm.roles.validator:
        found = answer(
            list(asks.values()),
            judge,
            llm,
            purpose=f"counting memberships, round {round_number}",
            models=models,
        )
        for reply in found:
            votes[question_of[reply.id]].append(membership_of(reply))
    return votes


def word_rows(
    known: Mapping[Question, Membership | None],
    gold: Mapping[Question, Membership],
    votes: Mapping[Question, Sequence[Membership]],
    judges: Sequence[RoleModel],
    round_number: int,
) -> list[dict[str, Any]]:
    """Rows of `counting_word_verdicts`; the lexicon decides where it can."""
    names = [judge.model or judge.provider for judge in judges]

    def row(question: Question, lexicon: Membership | None, is_gold: bool) -> dict[str, Any]:
        asked = votes.get(question, ()) if lexicon is None or is_gold else ()
        return {
            "round": round_number,
            "category": question[0],
            "word": question[1],
            "lexicon": lexicon,
            "judges": names if asked else [],
            "votes": list(asked),
            "verdict": lexicon or decide(asked),
            "decided_by": "validator" if lexicon is None else "lexicon",
            "is_gold": is_gold,
        }

    return [row(question, verdict, False) for question, verdict in known.items()] + [
        row(question, verdict, True) for question, verdict in gold.items()
    ]


def accept(
    lists: Sequence[Row],
    truth: Mapping[Question, Membership],
    state: WrittenState,
    data: CountingData,
    round_number: int,
) -> list[dict[str, Any]]:
    """Rows of `counting_list_verdicts`: which lists are right, and which place each fills."""
    empty = {cell: list(entries) for cell, entries in state.empty.items()}
    word_sets = {category: list(sets) for category, sets in state.word_sets.items()}
    uses = {category: counts.copy() for category, counts in state.word_uses.items()}
    rows = []
    for row in lists:
        written = written_list(row)
        reason = _reason(row, written, truth, state)
        labels_right = not reason
        entry = -1
        cell = (written.category, *written.shape)
        if not reason:
            reason = _crowding(written, word_sets, uses, data)
        if not reason and not empty.get(cell):
            reason = "its cell is full"
        if not reason:
            entry = empty[cell].pop(0)
            words = frozenset(word.word for word in written.words)
            word_sets.setdefault(written.category, []).append(words)
            uses.setdefault(written.category, Counter()).update(words)
        rows.append(
            {
                "round": round_number,
                "list_id": row["list_id"],
                "category": written.category,
                "length": written.shape[0],
                "count": written.shape[1],
                "labels_right": labels_right,
                "accepted": entry >= 0,
                "reason": reason,
                "entry": entry,
            }
        )
    return rows


def written_list(row: Row) -> LabelledList:
    """A written list of its row in `counting_written_lists`."""
    return LabelledList(
        category=row["category"],
        asked=(row["asked_length"], row["asked_count"]),
        words=tuple(
            LabelledWord(word, category, is_member)
            for word, category, is_member in zip(
                row["words"], row["word_categories"], row["is_member"]
            )
        ),
    )


def _reason(
    row: Row, written: LabelledList, truth: Mapping[Question, Membership], state: WrittenState
) -> str:
    """Why a list is not what its labels say; empty when it is."""
    if row["outcome"] != "ok":
        return f"no list: {row['outcome']}"
    if not written.words:
        return "no list: fewer came than were asked for"
    fault = fault_of(written, state.shapes(written.category))
    if fault:
        return fault
    verdicts = [truth[written.category, entry.word] for entry in written.words]
    if "unclear" in verdicts:
        return "a word of unclear membership"
    if any(
        (verdict == "yes") != entry.is_member for verdict, entry in zip(verdicts, written.words)
    ):
        return "a wrong label"
    return ""


def _crowding(
    written: LabelledList,
    word_sets: Mapping[str, Sequence[frozenset[str]]],
    uses: Mapping[str, Counter[str]],
    data: CountingData,
) -> str:
    """Why a right list would make the data too alike; empty when it would not."""
    words = frozenset(entry.word for entry in written.words)
    if any(
        jaccard(words, other) > data.max_similarity for other in word_sets.get(written.category, ())
    ):
        return "too similar to another list"
    counts = uses.get(written.category, Counter())
    if any(counts[word] >= data.llm.max_word_uses for word in words):
        return "a word used too often"
    return ""
