"""Minimal sets of blocks: those planted in a made-up model are found and confirmed."""

import numpy as np
import pytest

from interpflow.config.layer_surgery import SurgerySearch
from interpflow.errors import UserError
from interpflow.studies.layer_surgery.effects.minimal_blocks import (
    SearchedTask,
    find_sets,
    set_plan,
)
from interpflow.studies.layer_surgery.effects.search_stage import searched_tasks, set_row
from interpflow.tables.surgery_tables import SURGERY_TABLES

N_LAYERS = 8
NEEDED = {"json": {0, 3}, "addition": {0, 2, 5, 7}, "phrases": {1}}


def task(name: str, n: int = 30) -> SearchedTask:
    ids = [f"{name}{i}" for i in range(2 * n)]
    return SearchedTask(name, tuple(ids[:n]), tuple(ids[n:]), {one: one for one in ids})


class Made:
    """A model that answers an item of a task if all the blocks that the task needs are run."""

    def __init__(self, luck: float = 0.0) -> None:
        self.calls: list[tuple[int, int]] = []
        self.run: list[tuple[str, str]] = []
        self.luck = luck

    def __call__(self, plans, item_ids):
        self.calls.append((len(plans), len(item_ids)))
        self.run += [(str(plan.plan), one) for plan in plans for one in item_ids]
        return {
            str(plan.plan): {
                one: self.answers(one.rstrip("0123456789"), set(plan.plan.blocks))
                or hash((one, str(plan.plan))) % 1000 < 1000 * self.luck
                for one in item_ids
            }
            for plan in plans
        }

    def answers(self, name, blocks):
        return NEEDED[name] <= blocks


def test_planted_sets_are_found_and_confirmed():
    made = Made()
    found = find_sets([task(name) for name in NEEDED], N_LAYERS, SurgerySearch(), made)
    by = {(one.task, one.kind): one for one in found}
    assert len(by) == 6
    for name, needed in NEEDED.items():
        sufficient, necessary = by[name, "sufficient"], by[name, "necessary"]
        assert set(sufficient.blocks) == needed
        # Without any one of the blocks needed the task is lost: one block is a necessary set.
        assert len(necessary.blocks) == 1
        assert set(necessary.blocks) <= needed
        for one in (sufficient, necessary):
            assert one.found.is_minimal
            assert one.verdict == "holds"
            assert one.breaks == len(one.blocks)
        assert sufficient.kept.estimate == 1
        assert necessary.kept.estimate == 0
        assert sufficient.plan.plan.blocks == tuple(sorted(needed))


def test_nothing_is_run_twice_and_tasks_share_calls():
    made = Made()
    find_sets([task(name) for name in NEEDED], N_LAYERS, SurgerySearch(), made)
    assert len(set(made.run)) == len(made.run)
    assert made.calls[0][1] == 30 * len(NEEDED)  # all tasks begin with the same plans


def test_confirm_items_are_not_searched_on():
    made = Made()
    find_sets([task("json")], N_LAYERS, SurgerySearch(), made)
    searched = [one for n_plans, one in made.calls[:-2]]
    assert all(n == 30 for n in searched)


def test_a_set_that_was_luck_fails_on_confirm_items():
    class Lucky(Made):
        """On the items searched on, block 6 alone seems to be enough."""

        def answers(self, name, blocks):
            return NEEDED[name] <= blocks

        def __call__(self, plans, item_ids):
            found = super().__call__(plans, item_ids)
            for plan in plans:
                for one in item_ids:
                    if int(one[len("addition") :]) < 30 and 6 in plan.plan.blocks:
                        found[str(plan.plan)][one] = True
            return found

    found = find_sets([task("addition")], N_LAYERS, SurgerySearch(), Lucky())
    sufficient = next(one for one in found if one.kind == "sufficient")
    assert sufficient.blocks == (6,)
    assert sufficient.found_share == 1
    assert sufficient.verdict == "fails"
    assert sufficient.kept.ci_high < 0.8


def test_a_search_that_may_try_little_says_so():
    found = find_sets([task("addition")], N_LAYERS, SurgerySearch(max_plans=4), Made())
    assert all(one.found.n_tried <= 4 for one in found)
    assert not any(one.found.is_minimal for one in found)


def test_too_few_items_are_unclear():
    found = find_sets([task("phrases", n=3)], N_LAYERS, SurgerySearch(), Made())
    assert {one.verdict for one in found} == {"unclear"}


def test_a_few_families_confirm_nothing():
    few = task("json", 7)
    for families in (few.families, {one: int(one[4:]) % 5 for one in few.families}):
        about = SearchedTask(few.task, few.search, few.confirm, families)
        found = find_sets([about], N_LAYERS, SurgerySearch(), Made())
        # Seven of seven: Wilson's interval reaches from 0.65 to 1, and 0 of seven to 0.35.
        assert {one.verdict for one in found} == {"unclear"}


def test_unscored_items_do_not_count():
    class Holes(Made):
        def __call__(self, plans, item_ids):
            found = super().__call__(plans, item_ids)
            return {
                plan: {one: None if one.endswith("1") else value for one, value in rows.items()}
                for plan, rows in found.items()
            }

    found = find_sets([task("json")], N_LAYERS, SurgerySearch(), Holes())
    assert set(found[0].blocks) == NEEDED["json"]
    assert found[0].kept.n_dropped > 0


def test_set_plans():
    assert str(set_plan("sufficient", frozenset({1, 4}), 5).plan) == "1 4"
    assert str(set_plan("necessary", frozenset({1, 4}), 5).plan) == "0 2 3"
    assert set_plan("necessary", frozenset(), 3).plan.is_identity(3)
    assert str(set_plan("sufficient", frozenset(), 3).plan) == "-"


def test_rows_are_of_the_table():
    found = find_sets([task("json")], N_LAYERS, SurgerySearch(), Made())
    for one in found:
        assert set(set_row(one)) == set(SURGERY_TABLES["surgery_sets"])


def rows_of(names=("json", "addition"), n=20):
    rng = np.random.default_rng(1)
    items = [
        {"example_id": f"{name}{i}", "family_id": f"f{name}{i}", "task": name,
         "split": ("discover", "develop", "confirm")[i % 3]}
        for name in names
        for i in range(n)
    ]  # fmt: skip
    intact = [
        {"example_id": row["example_id"], "answered": bool(rng.random() < 0.7)} for row in items
    ]
    return items, intact


def test_items_answered_intact_are_parted_by_split():
    items, intact = rows_of()
    (found,) = searched_tasks(items, intact, ["json"], None)
    answered = {row["example_id"] for row in intact if row["answered"]}
    split = {row["example_id"]: row["split"] for row in items}
    assert set(found.search) | set(found.confirm) <= answered
    assert {split[one] for one in found.confirm} == {"confirm"}
    assert {split[one] for one in found.search} == {"discover", "develop"}


def test_a_task_that_does_not_exist():
    items, intact = rows_of()
    with pytest.raises(UserError, match="no task 'sums'") as error:
        searched_tasks(items, intact, ["json"], ["sums"])
    assert "layer_surgery.search.tasks" in str(error.value)
    assert searched_tasks(items, intact, ["json"], ["addition"]) == []
