"""Written lists that were accepted, put in order as examples of the design."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from interpflow.config.counting import CountingData
from interpflow.config.identity import derived_seed
from interpflow.studies.counting.written_state import (
    WrittenRounds,
    read_rounds,
    require_complete,
    written_state,
)
from interpflow.tasks.counting.design import (
    CountingExample,
    FactorialDesign,
    make_example,
    template_ids_of,
)
from interpflow.tasks.counting.lexicon import Lexicon

SOURCE = "llm"


def written_examples(
    data: CountingData,
    design: FactorialDesign,
    lexicon: Lexicon,
    rounds: WrittenRounds,
    others: Sequence[CountingExample],
) -> list[CountingExample]:
    """Examples of the written lists, one per entry of the design that is to be written.

    The words are the generator's, their order is ours: writers put members first, and a model must
    not be able to tell the count from places. Members go to the places least used so far, those of
    `others` included. Raises UserError with the cells that lack lists.
    """
    lists = {row["list_id"]: row for row in read_rounds(rounds.lists, "counting_written_lists")}
    verdicts = read_rounds(rounds.verdicts, "counting_list_verdicts")
    state = written_state(data, design, lexicon, list(lists.values()), verdicts)
    require_complete(state, data.llm.max_rounds, verdicts)
    rng = random.Random(derived_seed(design.seed, "counting", "order of written words"))
    used: dict[int, Counter[int]] = defaultdict(Counter)
    for example in {example.family_id: example for example in others}.values():
        used[example.length].update(example.match_positions)
    examples = []
    accepted = sorted((row for row in verdicts if row["accepted"]), key=lambda row: row["entry"])
    for verdict in accepted:
        row = lists[verdict["list_id"]]
        labels = dict(zip(row["words"], row["is_member"]))
        words, matches = _arranged(labels, used[len(labels)], rng)
        examples += [
            make_example(row["category"], template_id, words, matches, SOURCE)
            for template_id in template_ids_of(design, verdict["entry"])
        ]
    return examples


def judged_memberships(rounds: WrittenRounds) -> dict[tuple[str, str], bool]:
    """(category, word) → member or not, of the words that validators decided."""
    return {
        (row["category"], row["word"]): row["verdict"] == "yes"
        for row in read_rounds(rounds.words, "counting_word_verdicts")
        if row["decided_by"] == "validator" and row["verdict"] != "unclear"
    }


def _arranged(
    labels: dict[str, bool], used: Counter[int], rng: random.Random
) -> tuple[list[str], list[bool]]:
    members = [word for word, is_member in labels.items() if is_member]
    others = [word for word, is_member in labels.items() if not is_member]
    rng.shuffle(members)
    rng.shuffle(others)
    order = sorted(range(len(labels)), key=lambda place: (used[place], rng.random()))
    places = set(order[: len(members)])
    used.update(places)
    matches = [place in places for place in range(len(labels))]
    return [members.pop() if match else others.pop() for match in matches], matches
