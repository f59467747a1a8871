"""Rows of solved small language tasks, several to a row, and of short stories."""

from __future__ import annotations

import random
from itertools import islice

from transformers import PreTrainedTokenizerFast

from interpflow.models.reference.interchange import PairBatch
from interpflow.models.reference.recipe import RecipeConfig
from interpflow.models.reference.rows import Row
from interpflow.models.reference.tokenizer import build_tokenizer
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS, builtin_items, end_of
from interpflow.tasks.nlp.generated import draws
from interpflow.tasks.nlp.held_out import GENERATED_TASKS, held_out
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.stories import stories, story

LISTED_TASKS = tuple(task for task in BUILTIN_TASKS if task not in GENERATED_TASKS)
# Share of the items of a step. What is left goes to the listed tasks, an equal part to each item.
SHARES = {
    "addition": 0.42,
    "addition_three": 0.14,
    "json": 0.03,
    "code": 0.03,
    "copying": 0.08,
    "pattern": 0.10,
}
# Rows of one item are those that a task asks without examples; in them the prompt is scored too.
SINGLE_ITEM_ROWS = 0.25
STORY_SEEDS = 2**32
# Drawn to collect the vocabulary: so many that no word of a grammar is missed.
VOCABULARY_STORIES, VOCABULARY_ITEMS = 4000, 1500
VOCABULARY_SEED = 0


def task_texts() -> list[str]:
    """Every piece of text that an item or a story can contain, after a line break too."""
    rng = random.Random(VOCABULARY_SEED)
    drawn = [
        item for task in GENERATED_TASKS for item in islice(draws(task, rng), VOCABULARY_ITEMS)
    ]
    solved = [item.prompt + item.answer + end_of(item.task) for item in (*all_listed(), *drawn)]
    return [*solved, "\n", *stories(VOCABULARY_STORIES, VOCABULARY_SEED)]


def all_listed() -> list[TaskItem]:
    """The items of all listed tasks."""
    return [item for task in LISTED_TASKS for item in builtin_items(task, None, 0)]


class SmallTasksMaterial:
    """Task rows of up to `items_per_row` solved items; drill rows are stories.

    Held-out items of the generated tasks are never drawn.
    """

    def __init__(self, recipe: RecipeConfig) -> None:
        self.recipe = recipe
        self.listed = all_listed()
        self.tokenizer: PreTrainedTokenizerFast = build_tokenizer((), task_texts())

    def draw(self, task: str, rng: random.Random, from_held_out: bool) -> TaskItem:
        """An item of a generated task."""
        return next(item for item in draws(task, rng) if held_out(item) == from_held_out)

    def task_rows(self, rng: random.Random) -> list[Row]:
        return [self._task_row(rng) for _ in range(self.recipe.corpus.task_rows)]

    def _task_row(self, rng: random.Random) -> Row:
        if rng.random() < SINGLE_ITEM_ROWS:
            text = joined([self._training_item(rng)]).text
            return Row(text, ((0, len(text)),))
        n_items = rng.randint(2, self.recipe.corpus.items_per_row)
        return joined([self._training_item(rng) for _ in range(n_items)])

    def _training_item(self, rng: random.Random) -> TaskItem:
        at = rng.random()
        for task, share in SHARES.items():
            if at < share:
                return self.draw(task, rng, from_held_out=False)
            at -= share
        return rng.choice(self.listed)

    def drill_rows(self, rng: random.Random) -> list[Row]:
        return [self.story_row(rng) for _ in range(self.recipe.corpus.drill_rows)]

    def story_row(self, rng: random.Random) -> Row:
        """A new story, every token scored but its first, which nothing comes before."""
        text = story(rng.randrange(STORY_SEEDS))
        return Row(text, ((0, len(text)),))

    def pairs(self, rng: random.Random) -> PairBatch | None:
        return None


def joined(items: list[TaskItem]) -> Row:
    """Solved items, each on a new line; the answers and what ends them are scored."""
    text, scored = "", []
    for item in items:
        if text and not text.endswith("\n"):
            text += "\n"
        text += item.prompt
        answered = item.answer + end_of(item.task)
        scored.append((len(text), len(text) + len(answered)))
        text += answered
    return Row(text, tuple(scored))


def answer_rows(item: TaskItem) -> list[Row]:
    """A row per accepted answer in which the answer and what ends it are scored."""
    answers = dict.fromkeys([item.answer, *(f" {word}" for word in _other_answers(item))])
    return [Row.answering(item.prompt, answer + end_of(item.task)) for answer in answers]


def _other_answers(item: TaskItem) -> tuple[str, ...]:
    return item.accepted if item.scorer == "set" else ()
