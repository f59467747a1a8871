"""The attention of a `SegmentPass`: over what the current pass lets its queries see.

Models that use the attention interface hand over rotated queries and keys, scale, window, softcap
and sinks; anything else that would change the result is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from interpflow.inference.segment_pass import CURRENT, IMPLEMENTATION, SegmentPass

# What a model may pass along that changes nothing here.
WITHOUT_EFFECT = frozenset(
    (
        "dropout", "is_causal", "position_ids", "cache_position", "output_attentions", "use_cache",
        "output_hidden_states", "output_router_logits", "return_dict", "position_embeddings",
    )
)  # fmt: skip


class AttentionNotSupported(RuntimeError):
    """The model asks for an attention that is not done exactly here."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of queries [row, heads, place, d] over what the current pass lets them see, own
    keys and values being [row, kv_heads, place, d]; returns [row, place, heads, d].

    Raises AttentionNotSupported for arguments that would change the result in an unknown way.
    """
    run = CURRENT.get()
    unknown = sorted(k for k, v in others.items() if v is not None and k not in WITHOUT_EFFECT)
    if run is None or unknown or attention_mask is not None or others.get("is_causal") is False:
        raise AttentionNotSupported(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    run.windows.append(sliding_window)
    layer, key, value = run.own(module, key, value)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window is not None and run.reach > sliding_window else None
    if run.packed:
        if window is not None:
            raise AttentionNotSupported("a window in packed rows")
        return _packed(query, key, value, run, scale, softcap, s_aux), None
    key, value = run.local(layer, key, value)
    if softcap is not None or s_aux is not None or (run.shared and not _splits(query, window)):
        if run.shared:
            shared = run.shared[layer]
            key, value = (
                torch.cat([before.expand(len(state), -1, -1, -1), state], dim=2)
                for before, state in zip(shared, (key, value))
            )
        mask = run.mask(window, whole=True)
        if softcap is not None or s_aux is not None:
            out = _explicit(query, key, value, mask, scale, softcap, s_aux)
        else:
            out = _fused(query, key, value, mask, scale)
    elif run.shared:
        mask = run.mask(window, whole=False)
        out = _merged(query, key, value, mask, scale, run.shared[layer])
    else:
        out = _fused(query, key, value, run.mask(window, whole=False), scale)
    return out.transpose(1, 2), None


def _splits(query: Tensor, window: int | None) -> bool:
    """Whether attention over shared keys can be done apart: torch's kernel that says how much
    weight a part of the keys has is for CPUs, and a window may hide part of them."""
    return query.is_cpu and query.dtype == torch.float32 and window is None


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if mask is None else mask.to(query.dtype),
        is_causal=mask is None and query.shape[2] > 1,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    run: SegmentPass,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Causal attention within each row of a packed pass [1, place, heads, d]."""
    found = []
    for rows in run.packed:
        own_key, own_value = rows.of(key), rows.of(value)
        if run.queries is None:
            own = rows.of(query)
        else:
            own = query[0, :, rows.first : rows.first + rows.n].transpose(0, 1)[:, :, None]
        if softcap is not None or sinks is not None:
            out = _explicit(own, own_key, own_value, None, scale, softcap, sinks)
        else:
            out = _fused(own, own_key, own_value, None, scale)
        found.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[None] if len(found) > 1 else found[0][None]


def _merged(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    shared: tuple[Tensor, Tensor],
) -> Tensor:
    """Softmax over local and shared keys, from the softmax over each and their weights."""
    rows, heads, places, width = query.shape
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    near, near_weight = _weighed(query, key, value, mask, mask is None and places > 1, scale)
    # Heads that share keys, and all rows, become places of one row.
    folded = query.view(rows, heads // groups, groups, places, width).permute(1, 0, 2, 3, 4)
    folded = folded.reshape(1, heads // groups, rows * groups * places, width)
    far, far_weight = _weighed(folded, *shared, None, False, scale)
    far = far.reshape(heads // groups, rows, groups, places, width).transpose(0, 1)
    far_weight = far_weight.reshape(heads // groups, rows, groups, places).transpose(0, 1)
    share = torch.sigmoid(far_weight.reshape(near_weight.shape) - near_weight)
    return torch.lerp(near, far.reshape(near.shape), share[..., None])


def _weighed(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention [row, head, place, d] and the log of its weights' sum [row, head, place]."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=mask, scale=scale
    )


def _explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = ((query * scale) @ key.transpose(-1, -2)).float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    elif query.shape[2] > 1:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    if sinks is None:
        pattern = scores.softmax(dim=-1)
    else:
        # A sink takes probability without a key of its own.
        sinks = sinks.to(scores).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        pattern = torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]
    return pattern.to(value.dtype) @ value


AttentionInterface.register(IMPLEMENTATION, attend)
