"""The prompts of the robustness study, from whatever source the config names."""

from __future__ import annotations

import logging
import random
from dataclasses import replace

from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessData
from interpflow.tasks.base_items import BaseItem
from interpflow.tasks.instructions import instruction_frame, instruction_items
from interpflow.tasks.item_files import LoadedItems, load_items
from interpflow.tasks.item_rows import dataset_rows, file_rows
from interpflow.tasks.problem_items import problem_items
from interpflow.tasks.word_problems import prompt_of

LOGGER = logging.getLogger(__name__)
QUESTION = "{question}"
DEFAULT_PROBLEMS = 300  # of word problems, of which there is no "all"


def study_items(data: RobustnessData, seed: int) -> LoadedItems:
    """The base items, at most `data.n_items` of them, in the order of their source.

    More than that are sampled by the seed, and what is not drawn is no rejection. Raises UserError
    for a source that cannot be read and one without a usable prompt.
    """
    drawn_by = derived_seed(seed, "robustness", "items")
    if data.source == "word_problems":
        n = data.n_items or DEFAULT_PROBLEMS
        return LoadedItems(tuple(problem_items(n, drawn_by, data.steps)))
    loaded = _loaded(data)
    if data.n_items is None or data.n_items >= len(loaded.items):
        if data.n_items is not None and data.n_items > len(loaded.items):
            LOGGER.info("%d prompts asked for, all %d used", data.n_items, len(loaded.items))
        return loaded
    LOGGER.info("%d of %d prompts drawn", data.n_items, len(loaded.items))
    places = sorted(random.Random(drawn_by).sample(range(len(loaded.items)), data.n_items))
    items = tuple(loaded.items[place] for place in places)
    kept = {item.base_id for item in items}
    rejected = tuple(row for row in loaded.rejected if not row.base_id or row.base_id in kept)
    return replace(loaded, items=items, rejected=rejected)


def frame(data: RobustnessData) -> tuple[str, str]:
    """What stands before and after a question in its prompt."""
    if data.prompt is not None:
        whole = data.prompt
    elif data.source == "instructions":
        whole = instruction_frame()
    else:
        whole = prompt_of(QUESTION)
    before, after = whole.split(QUESTION)
    return before, after


def _loaded(data: RobustnessData) -> LoadedItems:
    if data.source == "instructions":
        items: tuple[BaseItem, ...] = instruction_items()
        return LoadedItems(items)
    if data.source == "file" and data.path is not None:
        return load_items(file_rows(data.path), data.columns, source="file", where=data.path)
    if data.dataset is None:
        raise ValueError("a data set needs its name")
    name = data.dataset.name
    return load_items(dataset_rows(data.dataset), data.columns, source="dataset", where=name)
