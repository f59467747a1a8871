from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, PARTLY_FLOAT32, hook_count, tiny_model, tiny_pairs
from torch import Tensor

from interpflow.engine import Patch, Site, SweepResult, all_sites, sweep_sites
from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.proofs import blocks_proof, resume_proof
from interpflow.engine.sweeps import collect, joined_rows
from interpflow.engine.sweeps.plan import live_positions
from interpflow.errors import UserError

Groups = list[list[list[int] | None]]


def read_out(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
    """Depends on the pair, so that rows mixed up between pairs show."""
    return {
        "contrast": logits[:, 7] - logits[:, 3] + pair_index,
        "entropy": torch.distributions.Categorical(logits=logits).entropy(),
    }


def some_groups(base: list[list[int]]) -> Groups:
    """Positions alone (before, at, between and after the differences), jointly, and none."""
    singles = [[[0], [2], [3], [len(row) - 3], [len(row) - 1]] for row in base]
    return [
        [*alone, [2, 5], list(range(len(row))), None if i else []]
        for i, (alone, row) in enumerate(zip(singles, base))
    ]


def naive(
    model: Model, base: list[list[int]], donor: list[list[int]], sites: list[Site], groups: Groups
) -> dict[str, np.ndarray]:
    """One whole pass per pair, site and group, through the public patch."""
    shape = (len(base), len(sites), len(groups[0]))
    values = {name: np.full(shape, np.nan) for name in ("contrast", "entropy")}
    for pair, (b, d) in enumerate(zip(base, donor)):
        states = model.capture([d], sites)
        for s, site in enumerate(sites):
            for g, group in enumerate(groups[pair]):
                if not group:
                    continue
                logits = model.patch([b], [Patch(site, [group], states[site])])
                for name, value in read_out(logits, torch.tensor([pair])).items():
                    values[name][pair, s, g] = value[0]
    return values


def mixed_pairs() -> tuple[list[list[int]], list[list[int]]]:
    base, donor = tiny_pairs(4)
    for ids in (base, donor):
        ids[1:] = [ids[1][:9], ids[2], ids[3][:9]]
    return base, donor


@pytest.mark.parametrize("name", CONFIGS)
def test_sweep_equals_the_naive_loop(name: str) -> None:
    model = tiny_model(name)
    base, donor = mixed_pairs()
    base, donor = base[:2], donor[:2]
    sites = all_sites(model, model.available_components, [0, 2])
    sites = [Site("resid_post", 1), *(s for s in sites if s.head in (None, 1))]
    groups = some_groups(base)
    expected = naive(model, base, donor, sites, groups)
    atol = 1e-5 if name in PARTLY_FLOAT32 else 1e-11
    found = sweep_sites(model, base, donor, sites, groups, read_out, batch_tokens=64)
    assert found.path == "joining"
    for metric, values in expected.items():
        np.testing.assert_allclose(found.values[metric], values, atol=atol, rtol=0)
    assert hook_count(model) == 0
    assert np.nanmax(np.abs(found.effect("contrast"))) > 0.1


def test_sweep_in_float32_is_within_rounding() -> None:
    model = tiny_model("llama_grouped", "float32")
    base, donor = mixed_pairs()
    sites = list(all_sites(model, ["resid_pre", "head_out"]))
    groups = some_groups(base)
    found = sweep_sites(model, base, donor, sites, groups, read_out)
    slow = sweep_sites(model, base, donor, sites, groups, read_out, fast=False)
    for name in found.values:
        np.testing.assert_allclose(found.values[name], slow.values[name], atol=5e-5, rtol=0)


def test_unpatched_values_and_bookkeeping() -> None:
    model = tiny_model("llama")
    base, donor = mixed_pairs()
    sites = [Site("embed"), Site("resid_post", 2), Site("mlp_out", 1)]
    groups = some_groups(base)
    found = sweep_sites(model, base, donor, sites, groups, read_out)
    pairs = torch.arange(4)
    for ids, values in ((base, found.base), (donor, found.donor)):
        expected = read_out(model.last_logits(ids), pairs)
        for name in expected:
            np.testing.assert_allclose(values[name], expected[name].numpy(), atol=1e-12)
    cells = 4 * 3 * len(groups[0])
    assert found.n_rows_run + found.n_rows_no_op + found.n_rows_empty == cells
    assert found.n_rows_empty == 4 * 3
    rows = found.to_rows()
    assert len(rows) == 2 * cells
    assert sum(row["ran"] for row in rows) == 2 * found.n_rows_run
    slow = sweep_sites(model, base, donor, sites, groups, read_out, fast=False)
    assert slow.n_rows_no_op == 0
    assert found.n_block_tokens < slow.n_block_tokens / 2
    assert slow.n_block_tokens == slow.n_tokens * 3


def test_what_cannot_change_anything_is_not_run_and_is_exactly_base() -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs(1)  # differs at positions 2, 5 and 8 of 11
    sites = [Site("embed"), Site("resid_pre", 1), Site("mlp_out", 2), Site("resid_post", 2)]
    groups = [[[p] for p in range(11)]]
    found = sweep_sites(model, base, donor, sites, groups, read_out)
    ran = [list(np.flatnonzero(found.ran[0, s])) for s in range(4)]
    assert ran == [[2, 5, 8], list(range(2, 11)), [10], [10]]
    assert (found.effect("entropy")[~found.ran] == 0.0).all()
    slow = sweep_sites(model, base, donor, sites, groups, read_out, fast=False)
    assert slow.ran.all()
    np.testing.assert_allclose(slow.effect("entropy")[~found.ran], 0.0, atol=1e-12)


def test_cells_not_asked_for_are_left_out_and_the_others_keep_their_values() -> None:
    """Each site as in a sweep over the sites that are asked for at the same groups alone."""
    model = tiny_model("llama")
    base, donor = mixed_pairs()
    groups = some_groups(base)
    sites = list(all_sites(model, ["resid_pre", "attn_out"]))
    n = len(groups[0])
    asked = np.ones((len(sites), n), dtype=bool)
    asked[3:, [0, 2, 5]] = False
    found = sweep_sites(model, base, donor, sites, groups, read_out, asked=asked, audit=0.2)
    here = (~found.empty[:, None, :] & asked).sum()
    assert found.n_rows_run + found.n_rows_no_op == here
    assert (found.asked == asked).all()
    kept = [[None if g in (0, 2, 5) else group for g, group in enumerate(own)] for own in groups]
    for chosen, some in ((slice(0, 3), groups), (slice(3, None), kept)):
        alone = sweep_sites(model, base, donor, sites[chosen], some, read_out)
        for name, values in alone.values.items():
            np.testing.assert_array_equal(found.values[name][:, chosen], values)
    slow = sweep_sites(model, base, donor, sites, groups, read_out, asked=asked, fast=False)
    assert slow.n_rows_run == here
    assert (np.isnan(slow.values["contrast"]) == np.isnan(found.values["contrast"])).all()
    with pytest.raises(UserError, match="cells of shape"):
        sweep_sites(model, base, donor, sites, groups, read_out, asked=asked[1:])


def test_a_metric_in_blocks_of_rows_is_the_same_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", "float32")
    base, donor = mixed_pairs()
    sites, groups = [Site("resid_post", 0), Site("mlp_out", 1)], some_groups(base)
    whole = sweep_sites(model, base, donor, sites, groups, read_out)
    sizes: list[int] = []

    def counted(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        sizes.append(len(logits))
        return read_out(logits, pair_index)

    monkeypatch.setattr(collect, "METRIC_LOGITS", 3 * model.vocab_size)
    blocks = sweep_sites(model, base, donor, sites, groups, counted)
    assert max(sizes) == 3
    for name, values in whole.values.items():
        np.testing.assert_array_equal(blocks.values[name], values)
        np.testing.assert_array_equal(blocks.base[name], whole.base[name])


def test_live_positions_of_equal_prompts() -> None:
    assert live_positions(Site("resid_pre", 1), [0, 1, 2], np.zeros(3, bool), 3) == ()


@pytest.mark.parametrize("batch_tokens", [1, 17, 10_000])
def test_batches_do_not_change_values(batch_tokens: int) -> None:
    model = tiny_model("gpt2")
    base, donor = mixed_pairs()
    sites = list(all_sites(model, ["resid_post", "attn_out"]))
    for kind in ("activation", "random_norm_matched"):
        results = [
            sweep_sites(
                model, base, donor, sites, some_groups(base), read_out, batch_tokens=n, donor=kind
            )
            for n in (64, batch_tokens)
        ]
        for name in results[0].values:
            np.testing.assert_allclose(results[0].values[name], results[1].values[name], atol=1e-11)


def test_random_donors_are_as_long_as_the_real_change() -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs(1)
    site, place = Site("resid_pre", 1), 5
    written: list[Tensor] = []
    original = joined_rows.donor_values

    def watch(*args: Any) -> dict[Site, Tensor]:
        values = original(*args)
        written.append(values[site][:, place])
        return values

    def run(seed: int) -> SweepResult:
        return sweep_sites(
            model,
            base,
            donor,
            [site],
            [[[place]]],
            read_out,
            donor="random_norm_matched",
            seed=seed,
        )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joined_rows, "donor_values", watch)
        first, again, other = run(0), run(0), run(1)
    states = [model.capture(ids, [site])[site][0, place] for ids in (base, donor)]
    change = states[1] - states[0]
    moved = written[0][0] - states[0]
    torch.testing.assert_close(moved.norm(), change.norm())
    assert abs(float(moved @ change / change.norm() ** 2)) < 0.9
    assert first.values["entropy"] == again.values["entropy"]
    assert first.values["entropy"] != other.values["entropy"]
    assert first.values["entropy"] != first.base["entropy"]


def test_random_donors_change_nothing_where_prompts_agree() -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs(1)
    sites = [Site("embed"), Site("resid_pre", 1)]
    groups = [[[0, 1], [3]]]
    slow = sweep_sites(
        model, base, donor, sites, groups, read_out, donor="random_norm_matched", fast=False
    )
    np.testing.assert_allclose(slow.effect("entropy")[0, :, 0], 0.0, atol=1e-12)
    assert abs(slow.effect("entropy")[0, 1, 1]) > 1e-6


def test_models_that_cannot_be_entered_halfway_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    real = resume_proof.run_forward

    def stubborn(*args: object, **kwargs: object) -> object:
        if kwargs.get("resume") is not None:
            raise TypeError("no")
        return real(*args, **kwargs)

    monkeypatch.setattr(resume_proof, "run_forward", stubborn)
    monkeypatch.setattr(blocks_proof, "prove_blocks", lambda _model: "not this one")
    base, donor = mixed_pairs()
    sites, groups = list(all_sites(model, ["resid_pre"])), some_groups(base)
    found = sweep_sites(model, base, donor, sites, groups, read_out)
    assert found.path == "full"
    fresh = sweep_sites(tiny_model("llama"), base, donor, sites, groups, read_out)
    assert fresh.path == "full"
    monkeypatch.undo()
    fast = sweep_sites(tiny_model("llama"), base, donor, sites, groups, read_out)
    assert fast.path == "joining"
    np.testing.assert_allclose(found.values["entropy"], fast.values["entropy"], atol=1e-12)


def test_a_broken_shortcut_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from interpflow.engine.passes import forward

    real = forward._prefix_cache

    def shifted(keys_values: forward.KeysValues, length: int) -> object:
        return real(tuple((k.roll(1, dims=-2), v) for k, v in keys_values), length)

    monkeypatch.setattr(forward, "_prefix_cache", shifted)
    assert tiny_model("llama").fastest_path == "resume"


@pytest.mark.parametrize("where", ["metric", "write"])
def test_exceptions_leave_the_model_as_it_was(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt_neox")
    base, donor = tiny_pairs()
    before = model.last_logits(base)
    calls = []

    def failing(*args: object) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) > 2:  # base and donor are measured first
            raise ValueError("broken")
        return read_out(*args)  # type: ignore[arg-type]

    def broken(*_args: object) -> Tensor:
        raise ValueError("broken")

    metric: Metric | Callable = read_out
    if where == "metric":
        metric = failing
    else:
        monkeypatch.setattr(hooks, "write_states", broken)
    with pytest.raises(ValueError, match="broken"):
        sweep_sites(model, base, donor, [Site("attn_out", 1)], [[[5]]] * 3, metric)
    assert hook_count(model) == 0
    assert torch.equal(model.last_logits(base), before)


def test_wrong_calls_are_refused() -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs()
    site = [Site("resid_pre", 1)]
    with pytest.raises(UserError, match="pair 1"):
        sweep_sites(model, base, [donor[0], donor[1][:-1], donor[2]], site, [[[0]]] * 3, read_out)
    with pytest.raises(UserError, match="2 group lists"):
        sweep_sites(model, base, donor, site, [[[0]]] * 2, read_out)
    with pytest.raises(UserError, match="pair 2"):
        sweep_sites(model, base, donor, site, [[[0]], [[0]], [[11]]], read_out)
    with pytest.raises(UserError, match="pair 1"):
        sweep_sites(model, base, donor, site, [[[0]], [[0], [1]], [[1]]], read_out)
    with pytest.raises(UserError, match="unknown donor"):
        sweep_sites(model, base, donor, site, [[[0]]] * 3, read_out, donor="zero")
    with pytest.raises(UserError, match="no site"):
        sweep_sites(model, base, donor, [Site("resid_pre", 9)], [[[0]]] * 3, read_out)
    with pytest.raises(UserError, match="gave shape"):
        sweep_sites(model, base, donor, site, [[[0]]] * 3, lambda z, _: {"mean": z.mean()})


def test_progress_counts_cells() -> None:
    model = tiny_model("llama")
    base, donor = mixed_pairs()
    seen: list[tuple[int, int]] = []
    found = sweep_sites(
        model,
        base,
        donor,
        [Site("resid_pre", 1)],
        some_groups(base),
        read_out,
        batch_tokens=20,
        progress=lambda done, total: seen.append((done, total)),
    )
    cells = found.n_rows_run + found.n_rows_no_op
    assert found.n_rows_no_op > 0
    assert seen[-1] == (cells, cells)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
