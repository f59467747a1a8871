"""A small lexicon and recipe, so that the tests of the reference models take seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interpflow.models.reference.material import CountingMaterial
from interpflow.models.reference.recipe import (
    ArchitectureConfig,
    CorpusConfig,
    InterchangeConfig,
    ReadoutConfig,
    RecipeConfig,
)
from interpflow.tasks.counting.lexicon import Lexicon, lexicon_from_lists

SYLLABLES = ("ba", "ko", "ri", "su", "te")


@pytest.fixture(scope="session")
def small_lexicon() -> Lexicon:
    words = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]
    return lexicon_from_lists({"fruit": words[:40], "body part": words[40:80], "bird": words[80:]})


@pytest.fixture(scope="session")
def small_recipe() -> RecipeConfig:
    return RecipeConfig(
        name="count_running",
        steps=5,
        corpus=CorpusConfig(task="counting", task_rows=8, drill_rows=2, max_length=8),
        architecture=ArchitectureConfig(hidden=32, layers=3, heads=2, feed_forward=48),
        readout=ReadoutConfig(after_layer=1, running_count=True, weight=1.0),
        interchange=InterchangeConfig(pairs=4, after_layers=(1,), used=True),
    )


@pytest.fixture(scope="session")
def small_material(small_recipe: RecipeConfig, small_lexicon: Lexicon) -> CountingMaterial:
    return CountingMaterial(replace(small_recipe), small_lexicon)
