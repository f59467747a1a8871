"""A loaded decoder with a proven map: read its states, replace them, read its logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture, find_architecture
from interpflow.engine.batches import TokenBatch
from interpflow.engine.forward import Edit, ForwardResult, run_forward
from interpflow.engine.proof import prove
from interpflow.engine.resume_proof import fastest_path
from interpflow.engine.sites import COMPONENTS, Site, n_heads_of
from interpflow.errors import UserError

if TYPE_CHECKING:
    from interpflow.models.acquire import ModelSource

Ids = Sequence[Sequence[int]] | TokenBatch

# Token places per forward pass: large enough that starting a pass costs little beside running it.
DEFAULT_BATCH_TOKENS = 4096


def load(
    source: PreTrainedModel | ModelSource | str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    tokenizer: Any = None,
) -> Model:
    """Load a decoder-only model and prove the map of its parts.

    source: a model directory, a declared source, or a model already in memory, which is converted
    in place to `device` and `dtype` and put in evaluation mode.
    Raises UserError, naming the module, when the map cannot be proven.
    """
    wanted = getattr(torch, dtype, None)
    if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
        raise UserError(f"{dtype!r} is no floating-point type", remedy="use float32 or bfloat16")
    if isinstance(source, PreTrainedModel):
        module = source.to(device=device, dtype=wanted)  # type: ignore[call-arg]
    else:
        from interpflow.models.acquire import load_transformer

        module, found = load_transformer(source, dtype=dtype, device=str(device))
        tokenizer = found if tokenizer is None else tokenizer
    module.eval()
    return Model(module, tokenizer, prove(module, find_architecture(module)))


def full_precision(logits: Tensor) -> Tensor:
    """float64 stays, anything narrower becomes float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _row_places(
    batch: TokenBatch, positions: Sequence[Sequence[int]] | Tensor, where: str
) -> tuple[Tensor, Tensor]:
    """Row and position (both int64 [n]) of every chosen place; refuses places without a token."""
    n_rows = batch.input_ids.shape[0]
    if isinstance(positions, Tensor):
        if positions.dtype != torch.bool or positions.shape != batch.input_ids.shape:
            raise UserError("a position mask must be bool [batch, position]", where=where)
        rows, places = positions.to(batch.input_ids.device).nonzero(as_tuple=True)
    else:
        if len(positions) != n_rows:
            raise UserError(f"{len(positions)} rows of positions for {n_rows} rows", where=where)
        rows, places = _index(batch, positions)
    if bool((places < 0).any()) or bool((places >= batch.lengths[rows]).any()):
        raise UserError("a position lies outside its row", where=where)
    return rows, places


def _index(batch: TokenBatch, positions: Iterable[Sequence[int]]) -> tuple[Tensor, Tensor]:
    pairs = [(row, int(place)) for row, chosen in enumerate(positions) for place in chosen]
    index = torch.tensor(pairs, dtype=torch.int64, device=batch.input_ids.device).view(-1, 2)
    return index[:, 0], index[:, 1]


@dataclass(frozen=True, eq=False)
class Patch:
    """Replace a site's state at some positions of each row.

    positions: one list of positions per row, or a bool mask [batch, position].
    values: [batch, position, d]; values[b, p] is written at the chosen positions, the rest is not
    read. Zero or mean ablation is a patch with zeros or the mean.
    """

    site: Site
    positions: Sequence[Sequence[int]] | Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class Model:
    """A Hugging Face decoder (`module`) with its proven `architecture`. Build it with `load`."""

    module: PreTrainedModel
    tokenizer: Any
    architecture: Architecture

    @property
    def n_layers(self) -> int:
        return self.architecture.n_layers

    @property
    def n_heads(self) -> int:
        return self.architecture.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.architecture.n_kv_heads

    @property
    def head_dim(self) -> int:
        return self.architecture.head_dim

    @property
    def d_model(self) -> int:
        return self.architecture.d_model

    @property
    def vocab_size(self) -> int:
        return self.architecture.vocab_size

    @property
    def device(self) -> torch.device:
        return self.architecture.embedding.weight.device  # type: ignore[return-value]

    @property
    def dtype(self) -> torch.dtype:
        return self.architecture.embedding.weight.dtype  # type: ignore[return-value]

    @property
    def available_components(self) -> tuple[str, ...]:
        """Components whose place was proven on this model."""
        return tuple(c for c in COMPONENTS if c not in self.architecture.refused)

    @cached_property
    def fastest_path(self) -> str:
        """What a sweep may leave out, proven once: full, resume or resume+prefix."""
        return fastest_path(self.module, self.architecture)

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits [..., vocab] of residuals [..., d_model] (the logit lens)."""
        with torch.no_grad():
            return self.architecture.unembed(residual)

    def last_logits(self, ids: Ids, *, batch_tokens: int = DEFAULT_BATCH_TOKENS) -> Tensor:
        """Logits [batch, vocab] at each row's last real token (float32, float64 if the model is).

        Lists of ids run in batches of equal length, so no row is padded; a TokenBatch runs as it
        is, in one pass.
        """
        if isinstance(ids, TokenBatch):
            return self.run(ids)[0]
        by_length: dict[int, list[int]] = {}
        for row, tokens in enumerate(ids):
            by_length.setdefault(len(tokens), []).append(row)
        logits = torch.empty(len(ids), 0)
        for length, rows in by_length.items():
            step = max(1, batch_tokens // max(1, length))
            for start in range(0, len(rows), step):
                chosen = rows[start : start + step]
                found = self.run([ids[row] for row in chosen])[0]
                if logits.numel() == 0:
                    logits = found.new_empty(len(ids), found.shape[-1])
                logits[chosen] = found
        return logits

    def capture(
        self,
        ids: Ids,
        sites: Sequence[Site],
        positions: Sequence[Sequence[int]] | None = None,
    ) -> dict[Site, Tensor]:
        """States of each site, [batch, position, d], from one pass over all rows.

        positions: per row, the positions to return, in that order; rows may ask for different
        numbers of them. Places that hold no token or were not asked for are NaN.
        """
        batch = self._batch(ids)
        states = self.run(batch, sites=sites)[1]
        if positions is None:
            return states
        width = max((len(row) for row in positions), default=0)
        rows, places = _row_places(batch, positions, "positions")
        slots = torch.cat([torch.arange(len(row)) for row in positions]).to(rows.device)
        picked = {}
        for site, state in states.items():
            chosen = state.new_full((len(batch.lengths), width, state.shape[-1]), float("nan"))
            chosen[rows, slots] = state[rows, places]
            picked[site] = chosen
        return picked

    def patch(self, ids: Ids, patches: Sequence[Patch]) -> Tensor:
        """Logits [batch, vocab] at each row's last real token, with the patches in force."""
        return self.run(ids, patches=patches)[0]

    def run(
        self, ids: Ids, *, patches: Sequence[Patch] = (), sites: Sequence[Site] = ()
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """One pass: logits [batch, vocab] at the last real tokens, and states after the patches."""
        batch = self._batch(ids)
        for site in sites:
            self.check_site(site)
        result = self._forward(batch, self._edits(batch, patches), sites)
        if batch.is_padded:
            pads = batch.attention_mask == 0
            for state in result.states.values():
                state[pads.to(state.device)] = float("nan")
        return full_precision(result.logits[:, 0]), result.states

    def check_site(self, site: Site) -> None:
        """Raise UserError when this model has no such site, or none that was proven."""
        reason = self.architecture.refused.get(site.component)
        if reason is not None:
            raise UserError(
                f"{site.component} cannot be used on this model: {reason}",
                where=self.architecture.family,
                remedy=f"use {', '.join(self.available_components)}",
            )
        heads = n_heads_of(self, site.component)
        if site.layer >= self.n_layers or (site.head or 0) >= heads:
            raise UserError(
                f"there is no site {site}",
                where=self.architecture.family,
                remedy=f"this model has {self.n_layers} layers of {heads} heads",
            )

    def _forward(
        self, batch: TokenBatch, edits: Sequence[Edit], sites: Sequence[Site]
    ) -> ForwardResult:
        return run_forward(
            self.module,
            self.architecture,
            batch.input_ids,
            edits=edits,
            capture=sites,
            logits_at=batch.lengths - 1,
        )

    def _batch(self, ids: Ids) -> TokenBatch:
        batch = ids if isinstance(ids, TokenBatch) else TokenBatch.from_ids(ids)
        return batch.to(self.device)

    def _edits(self, batch: TokenBatch, patches: Sequence[Patch]) -> list[Edit]:
        edits = []
        taken: dict[Site, Tensor] = {}
        for patch in patches:
            self.check_site(patch.site)
            rows, places = _row_places(batch, patch.positions, f"patch of {patch.site}")
            width = self.architecture.width(patch.site, batch.input_ids.shape[1])
            expected = (*batch.input_ids.shape, width)
            if tuple(patch.values.shape) != expected:
                raise UserError(
                    f"values have shape {list(patch.values.shape)}, expected {list(expected)}",
                    where=f"patch of {patch.site}",
                )
            site = Site("resid_pre") if patch.site.component == "embed" else patch.site
            before = taken.setdefault(site, torch.zeros_like(batch.input_ids, dtype=torch.bool))
            if bool(before[rows, places].any()):
                raise UserError(f"{site} is patched twice at one position", where="patches")
            before[rows, places] = True
            values = patch.values.to(self.device)[rows, places]
            edits.append(Edit(site, rows, places, values))
        return edits
