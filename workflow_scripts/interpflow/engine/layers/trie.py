"""Plans that begin alike share their first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from interpflow.plans.layer_plan import LayerPlan, Step


def plan_trie(plans: Sequence[LayerPlan]) -> Node:
    """The root of the tree whose paths are the plans; its own step is None."""
    root = Node(None)
    for number, plan in enumerate(plans):
        node = root
        for step in plan.steps:
            node = node.children.setdefault(step, Node(step))
        node.plans.append(number)
    return root


@dataclass
class Node:
    """A step after those before it. plans: numbers of the plans that end with it; children: what
    comes next, in the order in which plans first ask for it."""

    step: Step | None
    plans: list[int] = field(default_factory=list)
    children: dict[Step, Node] = field(default_factory=dict)
