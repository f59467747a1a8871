"""Interventions: what is done to the states of a site, at some positions of each prompt.

Several of them make a list. Those of one site act in the order of the list, each on the states that
the ones before it left; sites act in the order in which a forward reaches them. Only the positions,
heads and features that an intervention names are changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.alignment import Alignment
from interpflow.engine.positions import Positions
from interpflow.engine.prompts import Prompts
from interpflow.engine.sites import HEAD_COMPONENTS, Site
from interpflow.errors import UserError


@dataclass(frozen=True)
class Acting:
    """Where an intervention acts in one pass: the k-th state belongs to prompt rows[k] (counted
    over all prompts of the call) and to position positions[k] of it; both int64 [n]."""

    rows: Tensor
    positions: Tensor


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of one site's states.

    positions: see `interpflow.engine.positions`. "all" includes generated positions.
    heads: of a site of all heads together (head=None), the heads that are changed; all if None.
    neurons: the features of the site's state that are changed (of `pattern`, the key positions);
    all if None.
    """

    site: Site
    positions: Positions = "all"
    heads: Sequence[int] | None = field(default=None, kw_only=True)
    neurons: Sequence[int] | None = field(default=None, kw_only=True)

    # Whether the new states do not depend on the ones in force.
    replaces: ClassVar[bool] = False

    def __post_init__(self) -> None:
        inside = self.site.component in HEAD_COMPONENTS and self.site.head is None
        if self.heads is not None and not inside:
            raise UserError(
                f"{self.site} has no heads to choose from",
                where=type(self).__name__,
                remedy=f"name heads for {', '.join(HEAD_COMPONENTS)} of all heads together",
            )
        if None not in (self.heads, self.neurons) and self.site.component != "pattern":
            raise UserError(
                "heads and neurons are both named", where=f"{type(self).__name__} of {self.site}",
                remedy="name the features of the chosen heads by neurons alone",
            )  # fmt: skip

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        """The states [n, d] that take the place of `present` [n, d]; heads one after another."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class DonorIntervention(Intervention):
    """An intervention that needs states from elsewhere: given values, or a donor's own.

    values: [batch, position, d]; values[b, p] belongs to position p of prompt b, the rest is not
    read. donor: a prompt for each prompt, or one for all; its states at `donor_positions` (the
    k-th chosen position gets the state of the k-th donor position), or at the positions that
    `alignment` (one per prompt) gives, or at the same positions where both are equally long.
    """

    values: Tensor | None = None
    donor: Prompts | None = field(default=None, kw_only=True)
    donor_positions: Positions | None = field(default=None, kw_only=True)
    alignment: Sequence[Alignment] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"{type(self).__name__} of {self.site}"
        if (self.values is None) == (self.donor is None):
            raise UserError("give either values or a donor", where=where)
        if self.donor is None and (self.donor_positions is not None or self.alignment is not None):
            raise UserError("donor positions without a donor", where=where)
        if self.donor_positions is not None and self.alignment is not None:
            raise UserError("give either donor positions or an alignment", where=where)

    def values_at(self, present: Tensor, at: Acting) -> Tensor:
        """The donor's states [n, d] for the states in force. Raises UserError where there are
        none."""
        assert self.values is not None  # donors are run before anything acts
        values = self.values.to(present.device)
        if bool((at.positions >= values.shape[1]).any()):
            raise UserError(
                f"there are no values for position {int(at.positions.max())}",
                where=f"{type(self).__name__} of {self.site}",
                remedy='name positions of the prompt, such as positions="prompt"',
            )
        found = values[at.rows.to(values.device), at.positions.to(values.device)]
        if self.site.component == "pattern":
            found = _with_keys(found.reshape(len(found), -1, values.shape[-1]), present)
        if bool(found.isnan().any()):
            row, position = _first_nan(found, at)
            raise UserError(
                f"there is no value for position {position} of prompt {row}",
                where=f"{type(self).__name__} of {self.site}",
                remedy="choose positions that the donor has a state for",
            )
        return found.reshape(present.shape).to(present)


@dataclass(frozen=True, eq=False)
class Patch(DonorIntervention):
    """Replace states by given values or by a donor's."""

    replaces: ClassVar[bool] = True

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        return self.values_at(present, at)


@dataclass(frozen=True, eq=False)
class Interpolate(DonorIntervention):
    """Move states a share `alpha` of the way to a donor's: 0 changes nothing, 1 is a patch."""

    alpha: float = field(kw_only=True)

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        return torch.lerp(present, self.values_at(present, at), self.alpha)


@dataclass(frozen=True, eq=False)
class ResampleAblation(DonorIntervention):
    """Replace each prompt's states by those of a prompt drawn from the donors, the same one at all
    positions: what stays is what does not depend on the prompt.

    donor: the prompts to draw from, any number of them; values: their states [donor, position, d].
    The draw depends on the seed and on the prompt's number alone.
    """

    seed: int = field(default=0, kw_only=True)
    replaces: ClassVar[bool] = True

    def drawn(self, n_rows: int, n_donors: int) -> list[int]:
        """The donor of each prompt."""
        return [
            int(np.random.default_rng([self.seed, row]).integers(n_donors)) for row in range(n_rows)
        ]

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        return self.values_at(present, at)


@dataclass(frozen=True, eq=False)
class ZeroAblation(Intervention):
    """Replace states by zeros: rarely what a model has ever seen there."""

    replaces: ClassVar[bool] = True

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        return torch.zeros_like(present)


@dataclass(frozen=True, eq=False)
class MeanAblation(Intervention):
    """Replace states by a mean, [d] or [position, d]; see `interpflow.engine.mean_state`."""

    mean: Tensor = field(kw_only=True)
    replaces: ClassVar[bool] = True

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        where = f"{type(self).__name__} of {self.site}"
        mean = self.mean.to(present.device)
        _check_width(mean, present, where)
        if mean.ndim == 1:
            return mean.to(present).expand_as(present)
        positions = at.positions.to(present.device)
        if bool((positions >= len(mean)).any()) or bool(mean[positions].isnan().any()):
            raise UserError(
                f"there is no mean for some of the positions up to {int(positions.max())}",
                where=where,
                remedy="take the mean over prompts that reach these positions",
            )
        return mean[positions].to(present)


@dataclass(frozen=True, eq=False)
class AddDirection(Intervention):
    """Add `scale` x direction, [d] for all prompts or [batch, d]."""

    direction: Tensor = field(kw_only=True)
    scale: float = field(default=1.0, kw_only=True)

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        direction = self.direction.to(present)
        _check_width(direction, present, f"{type(self).__name__} of {self.site}")
        if direction.ndim == 2:
            direction = direction[at.rows.to(present.device)]
        return present + self.scale * direction


@dataclass(frozen=True, eq=False)
class Scale(Intervention):
    """Multiply states by a factor."""

    factor: float = field(kw_only=True)

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        return present * self.factor


@dataclass(frozen=True, eq=False)
class Noise(Intervention):
    """Add Gaussian noise of standard deviation `sd`.

    Causal tracing (Meng et al. 2022) adds it to the embeddings of the subject, with three times
    their standard deviation (`interpflow.engine.embedding_sd`). The noise depends on the seed, the
    prompt's number and the position alone: the same at every site, in every batch, and while text
    is generated (common random numbers).
    """

    sd: float = field(kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.site.component == "pattern":
            raise UserError(
                "noise in a pattern would weigh keys that a query cannot see",
                where=f"{type(self).__name__} of {self.site}",
                remedy="add it to queries or keys",
            )

    def new_states(self, present: Tensor, at: Acting) -> Tensor:
        drawn = [
            np.random.default_rng([self.seed, row, position]).standard_normal(present.shape[1])
            for row, position in zip(at.rows.tolist(), at.positions.tolist())
        ]
        return present + self.sd * torch.from_numpy(np.stack(drawn)).to(present)


def _with_keys(found: Tensor, present: Tensor) -> Tensor:
    """Patterns [n, head, key] for as many keys as `present` [n, head x key] has; those that a
    query cannot see yet have no weight."""
    n_keys = present.shape[1] // found.shape[1]
    return torch.nn.functional.pad(found, (0, n_keys - found.shape[2]))


def _first_nan(found: Tensor, at: Acting) -> tuple[int, int]:
    first = int(found.flatten(1).isnan().any(dim=1).nonzero()[0, 0])
    return int(at.rows[first]), int(at.positions[first])


def _check_width(given: Tensor, present: Tensor, where: str) -> None:
    if given.ndim not in (1, 2) or given.shape[-1] != present.shape[1]:
        raise UserError(
            f"a tensor of shape {list(given.shape)} for states of width {present.shape[1]}",
            where=where,
        )
