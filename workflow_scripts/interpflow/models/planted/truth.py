"""What is known of the parts of a planted model: needed for the task, irrelevant to it, or dead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from interpflow.errors import UserError

Task = Literal["induction", "redundant", "counting"]
TASKS: tuple[Task, ...] = ("induction", "redundant", "counting")
Role = Literal["needed", "irrelevant", "dead"]


class SiteLike(Protocol):
    """What names a site: `interpflow.engine.Site` is one."""

    @property
    def component(self) -> str: ...

    @property
    def layer(self) -> int: ...

    @property
    def head(self) -> int | None: ...


def roles_of(
    truth: Iterable[PlantedSite], sites: Iterable[SiteLike], *, at: str | None = None
) -> tuple[Role, ...]:
    """The role of each site, in their order.

    at: the name of the one span that is patched ("answer"): a part that is needed elsewhere only
    counts as irrelevant. Raises UserError for a site of which nothing is known.
    """
    known: dict[tuple[str, int, int | None], Role] = {}
    for part in truth:
        elsewhere = part.role == "needed" and at is not None and at not in part.acts_at
        known[part.component, part.layer, part.head] = "irrelevant" if elsewhere else part.role
    roles = []
    for site in sites:
        place = (site.component, site.layer, site.head)
        if place not in known:
            raise UserError(
                f"nothing is known of {site}",
                where="ground truth",
                remedy="score head_out and mlp_out sites of the planted model",
            )
        roles.append(known[place])
    return tuple(roles)


@dataclass(frozen=True)
class PlantedSite:
    """One part of a planted model.

    component: "head_out" or "mlp_out" (head is None). does: its mechanism, "" for dead parts.
    needed: patching it alone or together with others moves the answer; irrelevant: alive, and its
    states differ between prompts, but nothing that the task's answer depends on reads what it
    writes; dead: its output weights are exactly 0, and so are its values unless a live head shares
    them (MLP: all weights). acts_at: names of the spans (`PlantedPair.spans`) at which a needed
    part does its work.
    """

    component: str
    layer: int
    head: int | None
    role: Role
    does: str
    acts_at: tuple[str, ...] = ()
