"""What is asked for when states are captured, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from interpflow.engine.batches import TokenBatch
from interpflow.engine.positions import Positions, positions_of_rows
from interpflow.engine.sites import COMPONENTS, Site, all_sites
from interpflow.errors import UserError


class _Checked(Protocol):
    @property
    def n_layers(self) -> int: ...

    @property
    def n_heads(self) -> int: ...

    @property
    def n_kv_heads(self) -> int: ...

    def check_site(self, site: Site) -> None: ...


def named_sites(
    model: _Checked, sites: Site | str | Sequence[Site | str], layers: Sequence[int] | None
) -> tuple[Site, ...]:
    """Sites and component names as sites; a name stands for all its sites in the layers."""
    listed = [sites] if isinstance(sites, Site | str) else list(sites)
    if layers is not None and not any(isinstance(site, str) for site in listed):
        raise UserError(
            "layers are named, but no component to take from them",
            where="capture",
            remedy="give component names such as 'resid_post', or leave out the layers",
        )
    found: list[Site] = []
    for site in listed:
        if isinstance(site, Site):
            found.append(site)
            continue
        if site not in COMPONENTS:
            # Raises for what is no site either.
            found.append(Site.parse(site))
            continue
        for layer in layers or ():
            model.check_site(Site(site, layer) if site != "embed" else Site("embed"))
        model.check_site(Site(site))
        found += all_sites(model, [site], layers)
    return tuple(dict.fromkeys(found))


def captured_places(positions: Positions, batch: TokenBatch) -> tuple[Tensor | None, Tensor]:
    """Places [batch, n] to capture (None: all) and which of them, bool, are tokens asked for."""
    if isinstance(positions, str) and positions == "all":
        return None, batch.attention_mask.bool()
    chosen = positions_of_rows(positions, batch.lengths.tolist(), where="positions")
    width = max(map(len, chosen), default=0)
    device = batch.input_ids.device
    places = torch.tensor([row + [0] * (width - len(row)) for row in chosen], dtype=torch.int64)
    n_asked = torch.tensor([len(row) for row in chosen])
    real = torch.arange(width)[None, :] < n_asked[:, None]
    return places.view(len(chosen), width).to(device), real.to(device)


def only_tokens(states: Mapping[Site, Tensor], real: Tensor) -> dict[Site, Tensor]:
    """The states with NaN at the places [batch, n] that are not `real`."""
    if not bool(real.all()):
        for state in states.values():
            state[~real.to(state.device)] = float("nan")
    return dict(states)


def check_finite(logits: Tensor, states: Mapping[Site, Tensor], real: Tensor) -> None:
    """Raise UserError naming the first site and row whose state is NaN or infinite."""
    for site, state in sorted(states.items(), key=lambda item: _order(item[0])):
        finite = state.flatten(2).isfinite().all(dim=-1) | ~real.to(state.device)
        if not bool(finite.all()):
            row = int((~finite).any(dim=1).nonzero()[0, 0])
            raise UserError(
                f"the states of {site} are not finite",
                where=f"layer {site.layer}, prompt {row}",
                remedy="load the model with a wider dtype (float32, bfloat16); "
                "allow_nonfinite=True captures them all the same",
            )
    rows = (~logits.isfinite()).any(dim=-1).nonzero()
    if len(rows):
        raise UserError(
            "the logits are not finite",
            where=f"prompt {int(rows[0, 0])}",
            remedy="load the model with a wider dtype (float32, bfloat16), or change less",
        )


def _order(site: Site) -> tuple[int, int]:
    return site.layer, COMPONENTS.index(site.component)
