"""From settings to designs: what `null` stands for."""

from __future__ import annotations

from collections.abc import Sequence

from interpflow.config.counting import CountingData, CountingPairs
from interpflow.tasks.counting.design import FactorialDesign
from interpflow.tasks.counting.lexicon import Lexicon
from interpflow.tasks.counting.pairs import PairDesign
from interpflow.tasks.counting.prompts import CountingTemplate


def factorial_design(
    data: CountingData, seed: int, lexicon: Lexicon, templates: Sequence[CountingTemplate]
) -> FactorialDesign:
    """The design of the lists; null categories and templates stand for all of them."""
    return FactorialDesign(
        categories=tuple(data.categories or lexicon.categories),
        lengths=data.lengths.values(),
        counts=data.counts.values() if data.counts else None,
        template_ids=tuple(data.templates or [template.id for template in templates]),
        crossed_templates=data.crossed_templates,
        replicates=data.replicates,
        max_similarity=data.max_similarity,
        seed=seed,
    )


def pair_design(
    pairs: CountingPairs, data: CountingData, seed: int, lexicon: Lexicon
) -> PairDesign:
    """The design of the pairs: more are made than used, since a tokenizer refuses some."""

    def made(n: int) -> int:
        return round(n * pairs.oversample)

    return PairDesign(
        categories=tuple(data.categories or lexicon.categories),
        lengths=pairs.lengths.values(),
        template_ids=tuple(pairs.templates),
        n_minimal=made(pairs.n_minimal),
        n_prefix=made(pairs.n_prefix),
        n_random=made(pairs.n_random),
        max_delta=pairs.max_delta,
        seed=seed,
    )
