"""The plan of shared beginnings: every prompt once, only what is really shared, within budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.inference import prompt_tree
from interpflow.inference.prompt_tree import Branch, plan_prompts, plan_separately


@pytest.fixture(autouse=True)
def _share_short_ones(monkeypatch) -> None:
    """Thresholds that prompts of a few tokens can reach."""
    monkeypatch.setattr(prompt_tree, "BRANCH_SAVING", 6)
    monkeypatch.setattr(prompt_tree, "STEM_SAVING", 3)
    monkeypatch.setattr(prompt_tree, "SHORTEST", 1)


def rebuilt(plan: Branch, prompts: list[list[int]]) -> dict[int, list[int]]:
    """Each prompt's tokens as the plan runs them: branches, stem, own."""
    found: dict[int, list[int]] = {}
    todo = [(plan, [])]
    while todo:
        branch, before = todo.pop()
        assert len(before) == branch.start
        before = before + prompts[branch.prompt][branch.start : branch.stop]
        todo += [(further, before) for further in branch.branches]
        for batch in branch.batches:
            for row, at in zip(batch.rows, batch.starts(branch.stop)):
                stem: list[int] = []
                if batch.stems:
                    model_prompt, stop = batch.stems[batch.stem_of[batch.rows.index(row)]]
                    stem = prompts[model_prompt][branch.stop : stop]
                    assert stop == at
                own = prompts[row][at:]
                assert own, "the last token is a prompt's own"
                assert row not in found
                found[row] = before + stem + own
    return found


def own_tokens(plan: Branch, prompts: list[list[int]]) -> int:
    """Tokens run, padding left out."""
    total, todo = 0, [plan]
    while todo:
        branch = todo.pop()
        total += branch.stop - branch.start
        todo += branch.branches
        for batch in branch.batches:
            starts = batch.starts(branch.stop)
            total += sum(len(prompts[row]) - at for row, at in zip(batch.rows, starts))
            total += sum(stop - branch.stop for _, stop in batch.stems)
    return total


prompts_of_few_tokens = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=30
)


@settings(max_examples=300, deadline=None)
@given(prompts_of_few_tokens, st.integers(0, 3), st.integers(1, 120))
def test_every_prompt_is_run_once_and_whole(prompts, n_nodes, budget):
    for plan in (
        plan_prompts(prompts, n_nodes, budget),
        plan_separately(prompts, n_nodes, budget),
    ):
        assert rebuilt(plan, prompts) == dict(enumerate(prompts))
        todo = [plan]
        while todo:
            branch = todo.pop()
            todo += branch.branches
            for batch in branch.batches:
                starts = batch.starts(branch.stop)
                longest = max(len(prompts[row]) - at for row, at in zip(batch.rows, starts))
                size = len(batch.rows) * (longest + n_nodes)
                assert size <= budget or len(batch.rows) == 1
                assert len(batch.stem_of) == (len(batch.rows) if batch.stems else 0)
    assert own_tokens(plan_prompts(prompts, n_nodes, budget), prompts) <= sum(map(len, prompts))


def test_nothing_shared():
    plan = plan_prompts([[1, 2, 3], [4, 5], [6]], 0, 100)
    assert not plan.shares
    assert [batch.rows for batch in plan.batches] == [(0, 1, 2)]


def test_a_beginning_of_all_is_one_branch():
    prompts = [[9] * 8 + [row, row] for row in range(6)]
    plan = plan_prompts(prompts, 0, 1000)
    assert not plan.batches
    (branch,) = plan.branches
    assert (branch.start, branch.stop) == (0, 8)
    assert own_tokens(plan, prompts) == 8 + 6 * 2


def test_branches_nest():
    prompts = [[9] * 8 + [row % 2] * 8 + [row, row] for row in range(12)]
    plan = plan_prompts(prompts, 0, 20)
    (branch,) = plan.branches
    assert sorted((part.start, part.stop) for part in branch.branches) == [(8, 16), (8, 16)]
    assert own_tokens(plan, prompts) == 8 + 2 * 8 + 12 * 2


def test_pairs_share_stems_of_one_batch():
    prompts = [[pair] * 6 + [side, side] for pair in range(5) for side in (7, 8)]
    plan = plan_prompts(prompts, 0, 1000)
    assert not plan.branches
    (batch,) = plan.batches
    assert len(batch.stems) == 5
    assert own_tokens(plan, prompts) == 5 * 6 + 10 * 2


def test_equal_prompts_keep_their_last_token():
    prompts = [[1, 2, 3, 4]] * 5
    plan = plan_prompts(prompts, 0, 1000)
    assert own_tokens(plan, prompts) == 3 + 5
    assert rebuilt(plan, prompts) == dict(enumerate(prompts))


def test_one_prompt_and_none():
    assert [batch.rows for batch in plan_prompts([[1, 2]], 4, 1).batches] == [(0,)]
    assert plan_prompts([], 4, 1) == Branch(0, 0, 0)


def test_a_chain_of_longer_and_longer_prompts():
    prompts = [list(range(size)) for size in range(1, 1500)]
    plan = plan_prompts(prompts, 0, 4096)
    assert set(rebuilt(plan, prompts)) == set(range(len(prompts)))
    assert own_tokens(plan, prompts) < 0.01 * sum(map(len, prompts))
