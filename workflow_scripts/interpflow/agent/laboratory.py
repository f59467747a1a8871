"""What an agent works on: one model that runs under layer plans, seen through measures only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from interpflow.plans.requests import NamedPlan

Measure = Literal["text", "answers"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
INTACT = {"kind": "identity"}  # the request of the model as it is


@dataclass(frozen=True)
class Metric:
    """One number of a unit. better: which way a model improves, where there is one."""

    name: str
    unit: str
    better: Literal["lower", "higher"]
    about: str


# What the rows of a measure hold of each unit: columns of the tables surgery_text_losses and
# surgery_answers. All but `answered` are 0 (top1_kept: 1) for the intact model, exactly.
METRICS: dict[Measure, tuple[Metric, ...]] = {
    "text": (
        Metric("delta_loss", "nats per token", "lower", "loss on neutral text minus the intact's"),
        Metric("kl", "nats per token", "lower", "KL divergence of the plan from the intact model"),
        Metric("top1_kept", "share", "higher", "tokens whose most probable next one is the same"),
    ),
    "answers": (
        Metric("delta_log_prob", "nats", "higher", "log-probability of the answer minus intact's"),
        Metric("kl", "nats per token", "lower", "KL divergence of the plan from the intact model"),
        Metric("top1_kept", "share", "higher", "tokens whose most probable next one is the same"),
        Metric("answered", "share", "higher", "items whose answer is the most probable one"),
    ),
}


@dataclass(frozen=True)
class Measured:
    """Rows of units under plans.

    rows: by plan, written out (`str(plan)`), one dict per item with "unit" (the independent unit:
    the document, or the family_id of task items; of several items of a family the mean is taken)
    and the measure's metrics as floats (NaN: not scored). runs: keys of the runs in the store that
    each plan's rows come from. forward_tokens: tokens newly run through the model, 0 where every
    row was cached; cached: whether all were.
    """

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    runs: Mapping[str, tuple[str, ...]]
    forward_tokens: int
    cached: bool


class Laboratory(Protocol):
    """A model, its tasks and texts. What it returns depends on its arguments only."""

    def describe(self) -> dict[str, Any]:
        """{"n_layers", "n_heads", "documents": {"explore": n, "confirm": n}, "tasks": {name:
        {"explore": n, "confirm": n, "accuracy": intact on the explore pool, "example": {"prompt",
        "answer"}}}}; tasks that are not analysed (difficulty gate) are left out."""
        ...

    def plan(self, request: Mapping[str, Any]) -> NamedPlan:
        """The plan that a request names. Raises UserError for what this model does not have."""
        ...

    def explore_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        """Ids of the units that may be explored, in a fixed order; task: of measure answers."""
        ...

    def confirm_units(self, measure: Measure, task: str | None) -> Sequence[str]:
        """Ids of the units that only registered tests read, none of which may be explored."""
        ...

    def measure(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> Measured:
        """The units under each plan; the intact model is a plan too."""
        ...

    def forward_tokens(
        self, plans: Sequence[NamedPlan], measure: Measure, task: str | None, units: Sequence[str]
    ) -> int:
        """Tokens that `measure` would newly run at most, without running anything."""
        ...
