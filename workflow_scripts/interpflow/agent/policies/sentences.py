"""Sentences of a fixed policy's report: every number, block and name stands in a hole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INTACT_LABEL = "intact"  # of the model as it is

_OF = {
    "delta_loss": ("loss", "raises", "lowers"),
    "delta_log_prob": ("log-probability of the answer", "raises", "lowers"),
}


def sentence(result: Mapping[str, Any], prediction: Mapping[str, Any]) -> str:
    """What a confirmed test found, with what was predicted of it. result, prediction: as observed
    by an agent."""
    id, metric = result["registration"], next(iter(result["effects"]))
    of, up, down = _OF.get(metric, (metric, "raises", "lowers"))

    def hole(name: str) -> str:
        return f"{{{{{id}.{name}}}}}"

    where = f"On {hole('task')}" if result["task"] else "On neutral text"
    units = "families of items" if result["task"] else "documents"
    is_intact = result["against"] == INTACT_LABEL
    other = "" if is_intact else f" compared with {hole('against')}"
    if "within" in prediction:
        said = f"{hole('plan')} leaves the {of} within the predicted bounds{other}"
    elif is_intact:
        said = f"{hole('plan')} {up if prediction['sign'] == 'increase' else down} the {of}"
    else:
        more = "higher" if prediction["sign"] == "increase" else "lower"
        said = f"the {of} under {hole('plan')} is {more} than under {hole('against')}"
    changed = "a change" if is_intact else "a difference"
    return (
        f"{where}, {said}: {changed} of {hole(metric)} over {hole('n')} {units} (predicted: "
        f"{hole('predicted')})."
    )
