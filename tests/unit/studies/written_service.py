"""A writer of lists and a judge of words that err at known rates, in place of a service."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interpflow.config.identity import content_hash
from interpflow.config.llm import RoleModel
from interpflow.llm.answers import Answer, Usage
from interpflow.llm.asks import Ask
from interpflow.tasks.counting.lexicon import Lexicon, load_lexicon

CATEGORIES = ("color", "fruit", "mammal", "vehicle")


@dataclass
class ErringService:
    """Knows the whole lexicon; labels a word wrongly, and misjudges one, at the rates given."""

    wrong_labels: float = 0.0
    sensitivity: float = 1.0
    specificity: float = 1.0
    lexicon: Lexicon = field(default_factory=load_lexicon)
    asked: list[Ask] = field(default_factory=list)
    n_labels: int = 0
    n_wrong: int = 0

    def answer(
        self, asks: Sequence[Ask], role: RoleModel, llm: Any, *, purpose: str, models: Any
    ) -> list[Answer]:
        self.asked += asks
        return [self._answer(ask, role) for ask in asks]

    def _answer(self, ask: Ask, role: RoleModel) -> Answer:
        name = role.model or role.provider
        key = content_hash([name, ask.turns[0].content, ask.sample])
        rng = random.Random(key)
        made = self._lists if ask.item["task"] == "counting_lists" else self._membership
        data = made(ask.item, rng)
        return Answer(ask.id, key, "ok", "", data, (), Usage(), 0.0, name, False)

    def _lists(self, item: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        category = item["category"]
        members, others = self.lexicon.members(category), self.lexicon.non_members(category)
        lists = []
        for shape in item["lists"]:
            words = [(word, True) for word in rng.sample(members, shape["count"])]
            words += [
                (word, False) for word in rng.sample(others, shape["length"] - shape["count"])
            ]
            lists.append({"words": [self._labelled(*entry, category, rng) for entry in words]})
        return {"lists": lists}

    def _labelled(
        self, word: str, is_member: bool, category: str, rng: random.Random
    ) -> dict[str, Any]:
        wrong = rng.random() < self.wrong_labels
        self.n_labels += 1
        self.n_wrong += wrong
        # Written as services write: capitals, spaces.
        return {"word": f" {word.capitalize()}", "category": category if is_member else "other",
                "is_member": is_member != wrong}  # fmt: skip

    def _membership(self, item: Mapping[str, Any], rng: random.Random) -> str:
        truth = item["category"] in self.lexicon.categories_of(item["word"])
        right = rng.random() < (self.sensitivity if truth else self.specificity)
        return "yes" if truth == right else "no"


def half_lexicon(directory: Path, categories: Sequence[str] = CATEGORIES, share: int = 2) -> Path:
    """Word lists of some categories in which every `share`-th word is missing."""
    whole = load_lexicon()
    directory.mkdir(parents=True, exist_ok=True)
    for category in categories:
        kept = [word for i, word in enumerate(whole.members(category)) if i % share]
        (directory / f"{category}.txt").write_text("\n".join(kept), encoding="utf-8")
    return directory
