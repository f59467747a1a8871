"""The audit of a sweep: what it may find, which rows it takes, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

from interpflow.engine import Site, sweep
from interpflow.engine.metrics import (
    combine_metrics,
    expected_value_metric,
    kl_metric,
    logit_diff_metric,
    probability_metric,
    value_spans,
)
from interpflow.engine.model import Model
from interpflow.engine.sweeps import audit as auditing
from interpflow.engine.sweeps import collect
from interpflow.engine.sweeps.audit import audited_rows
from interpflow.engine.sweeps.audit_limits import largest_change
from interpflow.engine.sweeps.pair_metrics import DonorKL
from interpflow.engine.sweeps.setting import SweepSetting

METRICS = ("logit_diff", "probability", "kl", "expected_value")


def some_pairs(n: int) -> list[dict]:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(n):
        clean, other = rng.integers(1, 50, (2, 7)).tolist()
        found.append({"clean": clean, "corrupted": other, "answers": (5, 9), "values": (1.0, 4.0)})
    return found


@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_no_error_of_the_logits_moves_a_metric_further(delta: float) -> None:
    """Against random and adversarial errors, on flat and on sharp distributions."""
    rng = np.random.default_rng(0)
    numbers = np.array([1.0, 4.0, 9.0, 2.0])
    worst: dict[str, float] = {"probability": 0.0, "kl": 0.0, "mean": 0.0}
    for trial in range(300):
        z = rng.normal(0, (0.1, 1.0, 5.0)[trial % 3], 4)
        reference = z + rng.normal(0, (0.0, 1e-3, 1.0)[trial // 3 % 3], 4)
        r = np.exp(reference) / np.exp(reference).sum()

        def values(z: np.ndarray, r: np.ndarray = r) -> dict[str, float]:
            p = np.exp(z) / np.exp(z).sum()
            return {
                "probability": p[0],
                "kl": float((r * np.log(r / p)).sum()),
                "mean": float(p @ numbers),
            }

        before = values(z)
        errors = [
            *rng.choice([-1.0, 1.0], (8, 4)),
            np.array([1, -1, -1, -1]),
            np.sign(z - reference),
        ]
        for error in errors:
            after = values(z + delta * error)
            for name, value in before.items():
                limit = largest_change(name, np.array([value]), delta, {"mean": 8.0})[0]
                # Values near 0 are sums of numbers near 1.
                ratio = (abs(after[name] - value) - 1e-15) / limit
                worst[name] = max(worst[name], ratio)
    assert all(0.3 < ratio <= 1 for ratio in worst.values()), worst


def test_a_probability_that_is_off_is_no_longer_excused_by_large_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("llama", "float32")
    pairs = some_pairs(4)
    found = sweep(model, pairs, metrics=METRICS, check="audit", audit=0.5)
    audit = found.audit
    assert audit is not None
    assert audit.relative < audit.limit
    scale, kept = audit.logit_scale, auditing.Collected.add_rows

    def off(self: collect.Collected, values: dict, rows: list) -> None:
        # Less than 1e-5 of the logits' scale, which is what all metrics were held to before.
        kept(self, {**values, "probability": values["probability"] + 0.8e-5 * scale}, rows)

    monkeypatch.setattr(auditing.Collected, "add_rows", off)
    with pytest.raises(RuntimeError, match="probability"):
        auditing.audit_sweep(_setting(model, pairs), *_values(model, pairs))


def _setting(model: Model, pairs: list[dict]) -> SweepSetting:
    clean, corrupted = ([pair[key] for pair in pairs] for key in ("clean", "corrupted"))
    sites = tuple(Site("resid_post", layer) for layer in range(model.n_layers))
    metric = probability_metric([5] * len(pairs))
    return SweepSetting(model, corrupted, clean, sites, metric, 512, "joining", "activation", 0)


def _values(model: Model, pairs: list[dict]) -> tuple[dict[str, np.ndarray], list, float]:
    found = sweep(model, pairs, metrics=("probability",), check="off")
    return found.values, [[[p] for p in range(7)] for _ in pairs], 0.5


@pytest.mark.parametrize("n_pairs", [1, 8, 100])
def test_the_audit_takes_all_pairs_it_can_afford(n_pairs: int) -> None:
    model = tiny_model("llama")
    setting = _setting(model, some_pairs(n_pairs))
    groups = [[[p] for p in range(7)] for _ in range(n_pairs)]
    n_cells = len(setting.sites) * 7
    rows = audited_rows(setting, groups, 0.05)
    taken = {row.pair for row in rows}
    assert len(rows) >= 0.05 * n_cells
    assert len({(row.pair, row.site_index, row.group) for row in rows}) == len(rows)
    assert len(taken) >= min(n_pairs, 2)
    naive = n_pairs * n_cells
    assert len(rows) + 2 * len(taken) <= max(0.05 * naive, len(rows) + 2 * 4)
    if n_pairs == 100:
        assert len(taken) > 30
    whole = audited_rows(setting, groups, 1.0)
    assert len({(row.site_index, row.group) for row in whole}) == n_cells


def test_with_many_pairs_every_cell_is_audited_and_only_cells_that_are_asked_for() -> None:
    model = tiny_model("llama")
    asked = np.ones((model.n_layers, 7), dtype=bool)
    asked[1, 2:] = False
    setting = replace(_setting(model, some_pairs(200)), asked=asked)
    rows = audited_rows(setting, [[[p] for p in range(7)] for _ in range(200)], 0.05)
    cells = {(row.site_index, row.group) for row in rows}
    assert cells == {tuple(cell) for cell in np.argwhere(asked).tolist()}
    assert len(rows) > len({row.pair for row in rows}) > 30


def test_the_audit_runs_no_base_and_each_donor_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = tiny_model("llama", "float32"), some_pairs(40)
    setting = _setting(model, pairs)
    values, groups, _ = _values(model, pairs)
    rows = audited_rows(setting, groups, 0.3)
    taken = {row.pair for row in rows}
    counted: list[int] = []
    count = auditing.Collected.count

    def kept(self: collect.Collected, forwards: int, tokens: int, block_tokens: int) -> None:
        counted.append(tokens)
        count(self, forwards, tokens, block_tokens)

    monkeypatch.setattr(auditing.Collected, "count", kept)
    auditing.audit_sweep(setting, values, groups, 0.3)
    assert sum(counted) == 7 * (len(taken) + len(rows))


def test_the_audit_finds_a_value_that_is_off_in_any_cell() -> None:
    """One cell at a time, in all pairs: with many pairs none is left unseen."""
    model, pairs = tiny_model("llama", "float32"), some_pairs(100)
    values, groups, _ = _values(model, pairs)
    setting = _setting(model, pairs)
    auditing.audit_sweep(setting, values, groups, 0.2)
    for s in range(model.n_layers):
        for g in (0, 3, 6):
            off = {name: array.copy() for name, array in values.items()}
            off["probability"][:, s, g] += 1e-3
            with pytest.raises(RuntimeError, match=f"probability at {setting.sites[s]}"):
                auditing.audit_sweep(setting, off, groups, 0.2)


def test_the_donors_log_probabilities_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pairs there are, rows of the whole vocabulary are held for a few at a time, and
    no donor is run for them more than once."""
    model, pairs = tiny_model("llama", "float32"), some_pairs(12)
    whole = sweep(model, pairs, metrics="kl", check="off").effects["kl"]
    monkeypatch.setattr(collect, "PASS_LOGITS", 3 * model.vocab_size)
    held: list[int] = []
    asked: list[int] = []
    take = DonorKL._take

    def counted(self: DonorKL, wanted: list[int]) -> None:
        asked.extend(pair for pair in wanted if pair not in self.kept)
        take(self, wanted)
        storages = {row.untyped_storage().data_ptr(): row for row in self.kept.values()}
        held.append(sum(row.untyped_storage().nbytes() // 4 for row in storages.values()))

    monkeypatch.setattr(DonorKL, "_take", counted)
    found = sweep(model, pairs, metrics="kl", check="off").effects["kl"]
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert max(held) <= 3 * model.vocab_size
    assert sorted(asked) == list(range(12))


def test_kl_against_the_donors_own_run() -> None:
    model, pairs = tiny_model("llama"), some_pairs(2)
    found = sweep(model, pairs, metrics="kl", check="off")
    log_p = model.last_logits([pair["clean"] for pair in pairs]).log_softmax(-1)
    log_q = model.last_logits([pair["corrupted"] for pair in pairs]).log_softmax(-1)
    expected = (log_p.exp() * (log_p - log_q)).sum(-1)
    np.testing.assert_allclose(found.baseline_corrupted["kl"], expected.numpy(), atol=1e-10)
    np.testing.assert_allclose(found.baseline_clean["kl"], 0.0, atol=1e-12)


def test_spans_are_carried_by_combined_metrics() -> None:
    mean = expected_value_metric([1, 2], [3.0, 8.0])
    diff = logit_diff_metric([1], [2])
    assert value_spans(combine_metrics(mean, diff)) == {"expected_value": 5.0}
    mixed = combine_metrics(mean, kl_metric(torch.zeros(1, 3)))
    assert value_spans(mixed) == {"expected_value": 5.0}
