"""One round of writing: the lists that are missing, asked of the role `generator`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.counting import CountingData, CountingLlmData
from interpflow.config.identity import content_hash, derived_seed
from interpflow.config.llm import LlmSettings
from interpflow.config.model import ModelSettings
from interpflow.llm.answers import Answer
from interpflow.llm.asking import answer
from interpflow.llm.asks import Ask
from interpflow.studies.counting.written_asks import answer_tokens, lists_ask, lists_of
from interpflow.studies.counting.written_state import WrittenState, state_before
from interpflow.tables.parquet import write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.counting.labelled_lists import LabelledList, Shape, read_lists
from interpflow.tasks.counting.lexicon import Lexicon

# Words at most named as worn out in a question.
MAX_AVOIDED = 40
# More calls than one round can hold for one category: keeps the draws of rounds apart.
CALLS_PER_ROUND = 10_000


def write_round(
    round_number: int,
    data: CountingData,
    seed: int,
    llm: LlmSettings,
    models: dict[str, ModelSettings],
    *,
    lexicon_path: str | None,
    templates_path: str | None,
    earlier_lists: Sequence[Path | str],
    earlier_verdicts: Sequence[Path | str],
    lists_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `counting_written_lists` of one round; empty when no list is missing.

    Raises UserError where the service cannot be used; every answer bought by then is kept.
    """
    lexicon, state = state_before(
        data, seed, lexicon_path=lexicon_path, templates_path=templates_path,
        earlier_lists=earlier_lists, earlier_verdicts=earlier_verdicts,
    )  # fmt: skip
    asks = planned_asks(
        state, data.llm, round_number, lexicon, seed, lexicon_path,
        longest=llm.roles.generator.max_tokens,
    )  # fmt: skip
    planned = {ask.id: (category, shapes) for ask, category, shapes in asks}
    answers = (
        answer([ask for ask, _, _ in asks], llm.roles.generator, llm,
               purpose=f"counting lists, round {round_number}", models=models)
        if asks
        else []
    )  # fmt: skip
    rows = [
        row for found in answers for row in _rows(found, *planned[found.id], round_number, lexicon)
    ]
    write_table(lists_path, "counting_written_lists", rows, provenance)
    missing = sum(map(len, state.empty.values()))
    print(f"round {round_number}: {missing} lists missing, {len(rows)} asked for")


def planned_asks(
    state: WrittenState,
    settings: CountingLlmData,
    round_number: int,
    lexicon: Lexicon,
    seed: int,
    lexicon_path: str | None = None,
    *,
    longest: int,
) -> list[tuple[Ask, str, tuple[Shape, ...]]]:
    """The asks of a round, each with its category and the shapes of its lists.

    longest: tokens of an answer; a call asks for fewer lists where `lists_per_call` would not fit,
    as each of its answers would be cut off, in every round.
    """
    missing: dict[str, list[Shape]] = {}
    for (category, length, count), entries in sorted(state.empty.items()):
        missing.setdefault(category, []).extend([(length, count)] * len(entries))
    asks = []
    for category, shapes in missing.items():
        spare = math.ceil(len(shapes) * (settings.oversample - 1))
        shapes = shapes + [shapes[i * len(shapes) // spare] for i in range(spare)]
        worn = [
            word
            for word, uses in state.word_uses.get(category, {}).items()
            if uses >= settings.max_word_uses
        ]
        for call, some in enumerate(_calls(shapes, settings.lists_per_call, longest)):
            ask = lists_ask(
                category, some, lexicon,
                avoid=sorted(worn)[:MAX_AVOIDED],
                # Every call is a draw of its own: equal asks must not share an answer.
                sample=round_number * CALLS_PER_ROUND + call,
                ask_id=f"round {round_number}, {category}, call {call}",
                seed=derived_seed(seed, "counting", "written", round_number, category, call),
                lexicon_path=lexicon_path,
            )  # fmt: skip
            asks.append((ask, category, some))
    return asks


def _calls(shapes: Sequence[Shape], at_most: int, longest: int) -> Iterator[tuple[Shape, ...]]:
    """The shapes in order, as many to a call as it may have and as its answer has room for."""
    some: tuple[Shape, ...] = ()
    for shape in shapes:
        if some and (len(some) == at_most or answer_tokens((*some, shape)) > longest):
            yield some
            some = ()
        some = (*some, shape)
    if some:
        yield some


def _rows(
    found: Answer, category: str, shapes: Sequence[Shape], round_number: int, lexicon: Lexicon
) -> list[dict[str, Any]]:
    """A row per list asked for; a list that did not come has no words.

    Words of the lexicon are spelled as there, that capitals tell no source from the other.
    """
    data = lists_of(found)
    written = read_lists(data, category, shapes) if data else []
    absent = [LabelledList(category, shape, ()) for shape in shapes[len(written) :]]
    return [
        {
            "round": round_number,
            "list_id": content_hash([found.key, place]),
            "ask_id": found.id,
            "request_key": found.key,
            "generator": found.model,
            "outcome": found.outcome,
            "category": category,
            "asked_length": made.asked[0],
            "asked_count": made.asked[1],
            "words": [lexicon.spelling_of(entry.word) for entry in made.words],
            "word_categories": [entry.category for entry in made.words],
            "is_member": [entry.is_member for entry in made.words],
        }
        for place, made in enumerate([*written, *absent])
    ]
