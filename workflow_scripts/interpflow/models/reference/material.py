"""What a recipe trains on: its tokenizer, its rows and its interchange pairs."""

from __future__ import annotations

import random
from typing import Protocol

from transformers import PreTrainedTokenizerFast

from interpflow.models.reference.counting_corpus import CountingCorpus, corpus_texts
from interpflow.models.reference.interchange import PairBatch, encode_pairs
from interpflow.models.reference.recipe import RecipeConfig
from interpflow.models.reference.rows import Row
from interpflow.models.reference.tokenizer import build_tokenizer
from interpflow.tasks.counting.lexicon import Lexicon, load_lexicon
from interpflow.tasks.counting.prompts import load_templates


class Material(Protocol):
    """Rows of a training step. All randomness comes from the generator."""

    tokenizer: PreTrainedTokenizerFast

    def task_rows(self, rng: random.Random) -> list[Row]: ...

    def drill_rows(self, rng: random.Random) -> list[Row]: ...

    def pairs(self, rng: random.Random) -> PairBatch | None: ...


class CountingMaterial:
    """Counting lists in every wording, word → category drill, and interchange pairs if asked."""

    def __init__(self, recipe: RecipeConfig, lexicon: Lexicon | None = None) -> None:
        lexicon = lexicon or load_lexicon()
        templates = load_templates()
        self.recipe = recipe
        self.corpus = CountingCorpus(lexicon, templates, recipe.corpus)
        self.tokenizer = build_tokenizer(lexicon.words, corpus_texts(lexicon, templates))

    def task_rows(self, rng: random.Random) -> list[Row]:
        return self.corpus.task_rows(rng, self.recipe.corpus.task_rows)

    def drill_rows(self, rng: random.Random) -> list[Row]:
        return self.corpus.drill_rows(rng, self.recipe.corpus.drill_rows)

    def pairs(self, rng: random.Random) -> PairBatch | None:
        if self.recipe.interchange is None:
            return None
        n = self.recipe.interchange.pairs
        share = self.recipe.corpus.instruction_share
        return encode_pairs(
            [self.corpus.draw_pair(rng, held_out=False) for _ in range(n)],
            [rng.choice(self.corpus.templates) for _ in range(n)],
            [rng.random() >= share for _ in range(n)],
            self.corpus,
            self.tokenizer,
        )
