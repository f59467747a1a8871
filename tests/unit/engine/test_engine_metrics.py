from __future__ import annotations

import math

import pytest
import torch

from interpflow.engine import answer_contrast_metric, combine_metrics, kl_metric
from interpflow.errors import UserError

CLEAN = torch.tensor([3.0, 1.0, 0.0])
CORRUPTED = torch.tensor([1.0, 3.0, 0.0])
PATCHED = torch.tensor([2.0, 2.0, 0.0])


def test_logit_difference_is_donor_answer_minus_base_answer() -> None:
    metric = answer_contrast_metric([0, 2], [1, 0])
    rows = torch.stack([CLEAN, CORRUPTED, PATCHED, CLEAN])
    found = metric(rows, torch.tensor([0, 0, 0, 1]))["logit_difference"]
    assert found.tolist() == [2.0, -2.0, 0.0, -3.0]


def test_candidates_are_read_out() -> None:
    metric = answer_contrast_metric([0], [1], [0, 2], [4.0, 10.0])
    found = metric(torch.tensor([[math.log(6), math.log(2), math.log(2)]]), torch.tensor([0]))
    assert float(found["captured_mass"]) == pytest.approx(0.8)
    assert float(found["expected_count"]) == pytest.approx(0.75 * 4 + 0.25 * 10)
    assert found["argmax_candidate"].tolist() == [4.0]


def test_kl_known_answers() -> None:
    reference = CLEAN.log_softmax(-1)[None]
    metric = kl_metric(reference)
    found = metric(torch.stack([PATCHED, CORRUPTED, CLEAN]), torch.tensor([0, 0, 0]))["kl"]
    torch.testing.assert_close(
        found, torch.tensor([0.3183772, 1.4591991, 0.0], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_reference_without_mass_on_a_token_is_finite() -> None:
    reference = torch.tensor([[0.0, -math.inf]])
    found = kl_metric(reference)(torch.zeros(1, 2), torch.tensor([0]))["kl"]
    assert float(found) == pytest.approx(math.log(2))


def test_metrics_combine_and_names_stay_unique() -> None:
    contrast = answer_contrast_metric([0], [1])
    both = combine_metrics(contrast, kl_metric(CLEAN.log_softmax(-1)[None]))
    assert set(both(PATCHED[None], torch.tensor([0]))) == {"logit_difference", "kl"}
    with pytest.raises(UserError, match="two metrics"):
        combine_metrics(contrast, contrast)(PATCHED[None], torch.tensor([0]))


def test_ambiguous_candidates_are_refused() -> None:
    with pytest.raises(UserError, match="same token"):
        answer_contrast_metric([0], [1], [5, 5], [1, 10])
    with pytest.raises(UserError, match="both ids and values"):
        answer_contrast_metric([0], [1], [5])
    with pytest.raises(UserError, match="differ in number"):
        answer_contrast_metric([0, 1], [1])
