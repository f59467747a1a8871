"""Lists and pairs of the counting study, written as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.counting import CountingData, CountingPairs
from interpflow.config.identity import split_of
from interpflow.studies.counting.written_examples import judged_memberships, written_examples
from interpflow.studies.counting.written_state import NO_ROUNDS, WrittenRounds, entries_to_write
from interpflow.tables.parquet import write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.counting.design import CountingExample, factorial_examples
from interpflow.tasks.counting.lexicon import OUTSIDE, Lexicon, load_lexicon
from interpflow.tasks.counting.pairs import CountingPair, make_pairs
from interpflow.tasks.counting.prompts import (
    CountingTemplate,
    answer_text,
    load_templates,
    render,
)
from interpflow.tasks.counting.setup import factorial_design, pair_design


def generate(
    data: CountingData,
    pairs: CountingPairs,
    seed: int,
    *,
    lexicon_path: str | None,
    templates_path: str | None,
    examples_path: Path | str,
    pairs_path: Path | str,
    rounds: WrittenRounds = NO_ROUNDS,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `counting_examples` and `counting_pairs`.

    `rounds`: where language models wrote lists, for every source but systematic. Raises UserError
    when the word lists cannot fill the design, or written lists are missing.
    """
    lexicon = load_lexicon(Path(lexicon_path) if lexicon_path else None)
    templates = load_templates(Path(templates_path) if templates_path else None)
    design = factorial_design(data, seed, lexicon, templates)
    examples = factorial_examples(design, lexicon, entries_to_write(data, design))
    examples += written_examples(data, design, lexicon, rounds, examples)
    made = make_pairs(pair_design(pairs, data, seed, lexicon), lexicon)
    known = lexicon.with_memberships(judged_memberships(rounds))
    write_table(
        examples_path, "counting_examples", example_rows(examples, known, templates), provenance
    )
    write_table(pairs_path, "counting_pairs", pair_rows(made), provenance)
    print(f"{len(examples)} prompts, {len(made)} pairs from {len(lexicon.categories)} categories")


def example_rows(
    examples: Iterable[CountingExample], lexicon: Lexicon, templates: Sequence[CountingTemplate]
) -> list[dict[str, Any]]:
    """Rows of the table `counting_examples`, prompts rendered."""
    by_id = {template.id: template for template in templates}
    rows = []
    for example in examples:
        template = by_id[example.template_id]
        prompt = render(template, lexicon, example.category, example.words)
        rows.append(
            {
                "example_id": example.example_id,
                "family_id": example.family_id,
                "split": split_of(example.family_id),
                "source": example.source,
                "category": example.category,
                "template_id": example.template_id,
                "length": example.length,
                "count": example.count,
                "words": list(example.words),
                "is_match": list(example.is_match),
                "match_positions": list(example.match_positions),
                "running_count": list(example.running_count),
                "largest_other_count": _largest_other(example, lexicon),
                "prompt": prompt.text,
                "word_starts": [start for start, _ in prompt.word_spans],
                "word_ends": [end for _, end in prompt.word_spans],
                "answer": answer_text(template, example.count),
            }
        )
    return rows


def _largest_other(example: CountingExample, lexicon: Lexicon) -> int:
    """Words of the most frequent other category: what a model that counts the wrong one says."""
    others = Counter(
        category
        for word in example.words
        for category in lexicon.categories_of(word)
        if category not in (example.category, OUTSIDE)
    )
    return max(others.values(), default=0)


def pair_rows(pairs: Iterable[CountingPair]) -> list[dict[str, Any]]:
    """Rows of the table `counting_pairs`."""
    return [
        {
            "pair_id": pair.pair_id,
            "family_id": pair.family_id,
            "split": split_of(pair.family_id),
            "kind": pair.kind,
            "category": pair.category,
            "template_id": pair.template_id,
            "length": pair.length,
            "position": pair.position,
            "delta": pair.delta,
            "clean_count": pair.clean_count,
            "corrupted_count": pair.corrupted_count,
            "clean_words": list(pair.clean_words),
            "corrupted_words": list(pair.corrupted_words),
            "clean_control_words": list(pair.clean_control_words),
            "corrupted_control_words": list(pair.corrupted_control_words),
        }
        for pair in pairs
    ]
