"""A loaded decoder with a proven map: read its states, change them, read its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture
from interpflow.engine.batches import TokenBatch
from interpflow.engine.interventions import Intervention
from interpflow.engine.interventions import Patch as Patch
from interpflow.engine.passes.captured import (
    captured_places,
    check_finite,
    named_sites,
    only_tokens,
)
from interpflow.engine.passes.changes import changes, with_donors_run
from interpflow.engine.passes.forward import run_forward
from interpflow.engine.positions import Positions
from interpflow.engine.prompts import Prompts, as_batch
from interpflow.engine.proofs.resume_proof import cache_is_exact, fastest_path
from interpflow.engine.sites import COMPONENTS, Site, n_heads_of
from interpflow.errors import UserError

# Token places per forward pass: large enough that starting a pass costs little beside running it.
DEFAULT_BATCH_TOKENS = 4096


def rotates_by_length(module: PreTrainedModel) -> bool:
    """Whether rotary embeddings depend on the length of the input, not on positions alone."""
    config: Any = module.config.get_text_config(decoder=True)
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    kinds = {str(value) for value in _leaves(settings)}
    return bool(kinds & {"dynamic", "longrope", "su"})


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    return [value]


def full_precision(logits: Tensor) -> Tensor:
    """float64 stays, anything narrower becomes float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


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
    def max_length(self) -> int | None:
        """Most positions that the model was made for, if it says so."""
        config = self.module.config.get_text_config(decoder=True)
        return getattr(config, "max_position_embeddings", None)

    @property
    def available_components(self) -> tuple[str, ...]:
        """Components whose place was proven on this model."""
        return tuple(c for c in COMPONENTS if c not in self.architecture.refused)

    @cached_property
    def fastest_path(self) -> str:
        """What a sweep may leave out, proven once: full, resume or resume+prefix."""
        return fastest_path(self.module, self.architecture)

    @cached_property
    def cache_is_exact(self) -> bool:
        """Whether a prompt may be continued from its keys and values, proven once."""
        return cache_is_exact(self.module, self.architecture)

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits [..., vocab] of residuals [..., d_model] (the logit lens)."""
        with torch.no_grad():
            return self.architecture.unembed(residual)

    def last_logits(self, prompts: Prompts, *, batch_tokens: int = DEFAULT_BATCH_TOKENS) -> Tensor:
        """Logits [batch, vocab] at each row's last real token (float32, float64 if the model is).

        Prompts run in batches of equal length, so no row is padded; a TokenBatch runs as it is, in
        one pass.
        """
        if isinstance(prompts, TokenBatch):
            return self.run(prompts)[0]
        batch = self.batch(prompts)
        lengths = batch.lengths.tolist()
        logits = torch.empty(len(lengths), 0)
        for length in dict.fromkeys(lengths):
            rows = [row for row, n in enumerate(lengths) if n == length]
            step = max(1, batch_tokens // length)
            for start in range(0, len(rows), step):
                chosen = rows[start : start + step]
                found = self.run(batch.input_ids[chosen, :length])[0]
                if logits.numel() == 0:
                    logits = found.new_empty(len(lengths), found.shape[-1])
                logits[chosen] = found
        return logits

    def capture(
        self,
        prompts: Prompts,
        sites: Site | str | Sequence[Site | str],
        layers: Sequence[int] | None = None,
        positions: Positions = "all",
        *,
        allow_nonfinite: bool = False,
    ) -> dict[Site, Tensor]:
        """States of each site, [batch, position, d], from one pass over all rows.

        sites: sites, or names of components, which stand for all their sites (one per head, where
        they have heads) in the named layers, or in all.
        positions: see `interpflow.engine.positions`; only these are kept, in the given order, and
        of patterns only these query rows are computed. Rows may ask for different numbers of them.
        Places that hold no token or were not asked for are NaN.
        Raises UserError for states that are NaN or infinite, unless they are allowed.
        """
        chosen = named_sites(self, sites, layers)
        return self.run(
            prompts, sites=chosen, positions=positions, allow_nonfinite=allow_nonfinite
        )[1]

    def patch(self, prompts: Prompts, patches: Sequence[Intervention]) -> Tensor:
        """Logits [batch, vocab] at each row's last real token, with the interventions in force."""
        return self.run(prompts, patches)[0]

    def run(
        self,
        prompts: Prompts,
        interventions: Sequence[Intervention] = (),
        sites: Sequence[Site] = (),
        positions: Positions = "all",
        *,
        allow_nonfinite: bool = False,
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """One pass: logits [batch, vocab] at the last real tokens, and the states of `sites` after
        the interventions (shapes and errors as in `capture`)."""
        self.check_ready()
        batch = self.batch(prompts)
        if batch.is_padded and rotates_by_length(self.module):
            raise UserError(
                "this model's rotation depends on the longest prompt of a batch",
                where=self.architecture.family,
                remedy="pass prompts of one length at a time",
            )
        for site in sites:
            self.check_site(site)
        lengths = batch.lengths.tolist()
        places, real = captured_places(positions, batch)
        result = run_forward(
            self.module,
            self.architecture,
            batch.input_ids,
            edits=changes(
                self.architecture,
                self.prepared(interventions, lengths),
                lengths,
                device=batch.input_ids.device,
            ),
            capture=sites,
            captured_places=places,
            logits_at=batch.lengths - 1,
        )
        logits = full_precision(result.logits[:, 0])
        if not allow_nonfinite:
            check_finite(logits, result.states, real)
        return logits, only_tokens(result.states, real)

    def prepared(
        self, interventions: Sequence[Intervention], lengths: Sequence[int]
    ) -> list[Intervention]:
        """The interventions, checked, with the states of their donors, for prompts of these
        lengths."""
        for one in interventions:
            self.check_site(one.site)

        def states_of(rows: list[list[int]], site: Site) -> Tensor:
            return self.capture(rows, site)[site]

        return with_donors_run(interventions, lengths, self.tokenizer, states_of)

    def batch(self, prompts: Prompts) -> TokenBatch:
        """Prompts as token ids on the model's device, padded on the right.

        Raises UserError for text without a tokenizer, tokens outside the vocabulary, and prompts
        longer than the model's positions.
        """
        return as_batch(
            prompts,
            self.tokenizer,
            n_tokens=self.architecture.embedding.weight.shape[0],  # type: ignore[arg-type]
            max_length=self.max_length,
            device=self.device,
        )

    def check_ready(self) -> None:
        """Raise UserError when passes would not repeat themselves."""
        if self.module.training:
            raise UserError(
                "the model is in training mode: dropout would make every pass another",
                where=self.architecture.family,
                remedy="call model.module.eval()",
            )

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
