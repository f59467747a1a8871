"""A patch by bare torch hooks, written apart from all else in the engine, to check it against.

Only what a module takes in or gives out can be patched so; for attention's inner states see
`plain_attention`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interpflow.engine.model import Model, full_precision
from interpflow.engine.sites import Site

PLAIN_COMPONENTS = (
    "resid_pre", "head_out", "attn_out", "resid_mid", "mlp_act", "mlp_out", "resid_post",
)  # fmt: skip


def plain_patched_logits(
    model: Model, ids: list[int], site: Site, position: int, value: Tensor
) -> Tensor:
    """Logits [vocab] at the last token of one prompt whose state at the site and position is
    `value` [d]; the site is one of PLAIN_COMPONENTS."""
    architecture = model.architecture
    parts = architecture.blocks[site.layer]
    start, stop = 0, len(value)
    if site.head is not None:
        start = site.head * len(value)
        stop = start + len(value)
    times = architecture.multiplier(site)
    # The residual between attention and MLP is what attention adds to the block's input.
    stream = torch.zeros_like(value)

    def written(state: Tensor) -> Tensor:
        flat = state.reshape(len(ids), -1).clone()
        flat[position, start:stop] = ((value - stream) / times).to(flat)
        return flat.reshape(state.shape)

    def read(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        state = args[0] if args else kwargs["hidden_states"]
        stream.copy_(state.reshape(len(ids), -1)[position])

    def before(_module: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if args:
            return (written(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": written(kwargs["hidden_states"])}

    def after(_module: Any, _args: tuple, output: Any) -> Any:
        if isinstance(output, Tensor):
            return written(output)
        return (written(output[0]), *output[1:])

    taken_in = {
        "resid_pre": parts.block,
        "head_out": parts.attention_projection,
        "mlp_act": parts.mlp_projection,
    }
    given_out = {
        "attn_out": parts.attention_outputs[:1],
        "resid_mid": parts.attention_outputs[:1],
        "mlp_out": parts.mlp_outputs[:1],
        "resid_post": (parts.block,),
    }
    module = taken_in.get(site.component)
    if module is not None:
        handles = [module.register_forward_pre_hook(before, with_kwargs=True)]
    else:
        handles = [given_out[site.component][0].register_forward_hook(after)]
    if site.component == "resid_mid":
        handles.append(parts.block.register_forward_pre_hook(read, with_kwargs=True))
    try:
        return bare_logits(model, ids)
    finally:
        for handle in handles:
            handle.remove()


def bare_logits(model: Model, ids: list[int]) -> Tensor:
    """Logits [vocab] at the last token of one prompt, by the model's own forward."""
    tokens = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        logits = model.module(input_ids=tokens, use_cache=False).logits[0, -1]
    return full_precision(logits)
