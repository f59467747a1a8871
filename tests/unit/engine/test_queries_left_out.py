"""Where only keys and values are wanted of a block, GPT-2's queries are not computed."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import tiny_model

from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.passes.fast_modules import fast_modules


def test_keys_and_values_are_the_same_without_queries() -> None:
    model = tiny_model("gpt2", "float32")
    blocks = Blocks(model.module, model.architecture)
    module: Any = model.module
    width = model.d_model
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        states = blocks.embed(torch.arange(1, 9).view(2, 4))
        plain = blocks.keys_values(1, states, 0, 4)
        handle = module.transformer.h[1].attn.c_attn.register_forward_hook(
            lambda _module, _args, output: seen.append(output)
        )
        with fast_modules(model.module):
            found = blocks.keys_values(1, states, 0, 4)
            blocks.run(1, states, 0, 4)
        handle.remove()
    torch.testing.assert_close(found.keys, plain.keys, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.values, plain.values, rtol=0, atol=1e-5)
    assert not seen[0][..., :width].any()
    assert seen[0][..., width:].abs().min() > 0
    # A whole block needs them.
    assert seen[1][..., :width].abs().min() > 0
    torch.testing.assert_close(seen[1][..., width:], seen[0][..., width:], rtol=0, atol=1e-5)
