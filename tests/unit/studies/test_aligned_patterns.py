"""A query's attention weights, carried over to the tokens that stand for its keys."""

from __future__ import annotations

import torch

from interpflow.studies.robustness.patches.patterns import aligned_pattern


def test_weights_follow_their_keys_and_sum_to_one() -> None:
    pattern = torch.tensor([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
    # Key 0 stays, key 1 moves to the last of three byte tokens, key 2 behind them.
    found = aligned_pattern(pattern, [0, 3, 4], 5)
    torch.testing.assert_close(
        found, torch.tensor([[0.5, 0.0, 0.0, 0.3, 0.2], [0.0, 0.0, 0.0, 1.0, 0.0]])
    )


def test_two_keys_on_one_token_add_up_and_a_lost_key_is_made_up_for() -> None:
    pattern = torch.tensor([[0.5, 0.25, 0.25]])
    torch.testing.assert_close(aligned_pattern(pattern, [0, 1, 1], 2), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(
        aligned_pattern(pattern, [0, 1, -1], 2), torch.tensor([[2 / 3, 1 / 3]])
    )


def test_a_head_whose_keys_are_all_lost_has_no_pattern() -> None:
    found = aligned_pattern(torch.tensor([[0.0, 1.0], [0.5, 0.5]]), [0, -1], 2)
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1], torch.tensor([1.0, 0.0]))
