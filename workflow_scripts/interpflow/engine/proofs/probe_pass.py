"""What a proof looks at: one pass over random tokens with every module of the map observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes import hooks
from interpflow.engine.passes.edits import AnyEdit, Edit
from interpflow.engine.passes.forward import run_forward
from interpflow.engine.sites import Site
from interpflow.errors import UserError

PROBE_ROWS, PROBE_POSITIONS = 2, 12
PROBE_SEED = 20_240_101
# A probe is made longer than a window, to see it at work, up to this window.
WIDEST_PROBED_WINDOW = 256
# transformers computes norms and softmaxes in float32 whatever the model's type.
SMALLEST_UNIT = torch.finfo(torch.float32).eps


def probe_ids(module: PreTrainedModel, architecture: Architecture) -> Tensor:
    """Random token ids [row, position], the same for a model every time."""
    config: Any = module.config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None) or 0
    length = PROBE_POSITIONS
    if PROBE_POSITIONS - 4 < window <= WIDEST_PROBED_WINDOW:
        length = window + 4
    length = min(length, getattr(config, "max_position_embeddings", None) or length)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    ids = torch.randint(architecture.vocab_size, (PROBE_ROWS, length), generator=generator)
    return ids.to(next(module.parameters()).device)


def miss(found: Tensor, expected: Tensor, *terms: Tensor, smallest: float = 0.0) -> float:
    """Largest difference in rounding units (of at least `smallest`) of the largest number
    involved; infinite when a number is not finite."""
    found = found.to(expected.device)
    scale = max(float(t.abs().max()) for t in (expected, *terms))
    kind = torch.finfo(expected.dtype)
    value = float((found - expected).abs().max()) / (
        max(kind.eps, smallest) * max(scale, torch.finfo(torch.float32).tiny)
    )
    return value if value == value else float("inf")


def places(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Row and place, int64 [n] each, of every token of the probe."""
    rows = torch.arange(ids.shape[0]).repeat_interleave(ids.shape[1])
    return rows.to(ids.device), torch.arange(ids.shape[1]).repeat(ids.shape[0]).to(ids.device)


def noise(site: Site, ids: Tensor, width: int) -> Edit:
    """Standard normal values at every place of the site."""
    rows, at = places(ids)
    generator = torch.Generator().manual_seed(PROBE_SEED + 1 + site.layer)
    values = torch.randn(len(rows), width, generator=generator)
    return Edit(site, rows, at, values.to(ids.device))


def own(site: Site, states: Tensor) -> Edit:
    """The states [batch, position, ...] written at every place of the site."""
    rows, at = places(states[..., 0].flatten(2)[..., 0] if states.ndim > 3 else states[..., 0])
    return Edit(site, rows, at, states.flatten(0, 1))


def refuse(architecture: Architecture, reason: str, *components: str) -> Architecture:
    """The map with these components refused for a reason."""
    return architecture.refusing(dict.fromkeys(components, reason))


class ProbePass:
    """Inputs and outputs of every module the map names, from one pass over the probe tokens.

    Modules that did not run exactly once, or whose state has another shape, are left out.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        architecture: Architecture,
        ids: Tensor,
        edits: Sequence[AnyEdit] = (),
        capture: Sequence[Site] = (),
    ) -> None:
        self.ids = ids
        self.block_returns_tuple = False
        raw_inputs: dict[nn.Module, list[Tensor]] = {}
        raw_outputs: dict[nn.Module, list[Tensor]] = {}

        def keep(kept: dict[nn.Module, list[Tensor]], part: nn.Module) -> hooks.StateFunction:
            def function(state: Tensor) -> None:
                kept.setdefault(part, []).append(state.detach().clone())

            return function

        def returned(_module: nn.Module, _args: tuple, output: Any) -> None:
            self.block_returns_tuple = isinstance(output, tuple)

        def observe(handles: list[Any]) -> None:
            handles.append(architecture.blocks[0].block.register_forward_hook(returned))
            for part in _modules_with_inputs(architecture):
                handles.append(hooks.on_input(part, keep(raw_inputs, part)))
            for part in _modules_with_outputs(architecture):
                handles.append(hooks.on_output(part, keep(raw_outputs, part)))

        result = run_forward(
            module, architecture, ids, edits=edits, capture=capture, observe=observe
        )
        self.logits, self.states = result.logits, result.states
        self.windows = {} if result.attention is None else result.attention.windows
        self.inputs = _once(raw_inputs, ids)
        self.outputs = _once(raw_outputs, ids)
        for parts in architecture.blocks:
            if parts.block not in self.inputs or parts.block not in self.outputs:
                raise UserError(
                    f"{parts.name} does not run once on states [batch, position, d]",
                    where=architecture.family,
                    remedy="an architecture with more than one residual stream is not supported",
                )


def _modules_with_inputs(architecture: Architecture) -> list[nn.Module]:
    found = [
        m
        for p in architecture.blocks
        for m in (p.block, p.attention_projection, p.mlp, p.mlp_projection)
    ]
    return list(dict.fromkeys(m for m in found if m is not None))


def _modules_with_outputs(architecture: Architecture) -> list[nn.Module]:
    found = [
        m
        for p in architecture.blocks
        for m in (p.block, p.attention, p.mlp, *p.attention_outputs, *p.mlp_outputs)
    ]
    return list(dict.fromkeys(m for m in found if m is not None))


def _once(kept: dict[nn.Module, list[Tensor]], ids: Tensor) -> dict[nn.Module, Tensor]:
    """The states [batch, position, d] of the modules that ran exactly once."""
    states = {}
    for part, seen in kept.items():
        if len(seen) == 1 and seen[0].shape[:-1] in (ids.shape, (ids.numel(),)):
            states[part] = seen[0].view(*ids.shape, -1)
    return states
