"""Hooks of somebody else on the model: sweeps see what they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from torch import nn

from interpflow.engine import sweep, sweep_sites
from interpflow.engine.model import Model
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.path import joining_blocks, why_whole

PAIRS: list[dict[str, Any]] = [
    {"clean": [3, 1, 4, 1, 5], "corrupted": [2, 7, 1, 8, 2], "answers": (5, 9)}
]


def bent(module: nn.Module, _args: Any, output: Any) -> Any:
    """Doubles what the module gives out, whatever it is."""
    if isinstance(output, torch.Tensor):
        return output * 2
    if isinstance(output, tuple):
        return (output[0] * 2, *output[1:])
    name = "logits" if "logits" in output else "last_hidden_state"
    output[name] = output[name] * 2
    return output


def places(model: Model) -> dict[str, nn.Module]:
    module: Any = model.module
    return {
        "whole": module,
        "base": module.model,
        "norm": module.model.norm,
        "head": module.lm_head,
        "block": module.model.layers[1],
        "inside": module.model.layers[1].self_attn.v_proj,
    }


@pytest.mark.parametrize("where", ["whole", "base", "norm", "head", "block", "inside"])
def test_a_foreign_hook_is_not_passed_by(where: str) -> None:
    model = tiny_model("llama")
    plain = sweep(model, PAIRS, check="off").values["logit_diff"]
    assert why_whole(model) is None
    handle = places(model)[where].register_forward_hook(bent)
    try:
        reason = why_whole(model)
        assert joining_blocks(model) is None
        assert reason is not None
        assert "hook" in reason
        sites = [Site("resid_post", 0)]
        base, donor = ([pair[key] for pair in PAIRS] for key in ("corrupted", "clean"))

        def contrast(logits: torch.Tensor, _pairs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"contrast": logits[:, 5] - logits[:, 9]}

        path = sweep_sites(model, base, donor, sites, [[[4]]], contrast).path
        assert path == "full"
        found = sweep(model, PAIRS, check="off").values["logit_diff"]
        oracle = sweep(model, PAIRS, oracle=True).values["logit_diff"]
    finally:
        handle.remove()
    np.testing.assert_array_equal(found, oracle)
    assert np.abs(found - plain).max() > 1e-3
    assert joining_blocks(model) is not None


def test_a_hook_before_a_module_and_one_on_every_module_count_too() -> None:
    model = tiny_model("llama")
    handle = model.module.register_forward_pre_hook(lambda _module, _args: None)
    assert why_whole(model) == "a hook that is not interpflow's is on the whole model"
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda _m, _args, _out: None)
    try:
        assert why_whole(model) == "a hook that is not interpflow's is on every module"
    finally:
        handle.remove()
    assert why_whole(model) is None


def test_hooks_of_ours_and_of_transformers_do_not_count() -> None:
    model = tiny_model("llama")
    model.module(input_ids=torch.tensor([[1, 2]]), output_hidden_states=True)
    assert any(part._forward_hooks for part in model.module.modules())
    assert why_whole(model) is None
