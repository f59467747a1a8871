"""Steps that courses share: a hypothesis entered, its test registered and run."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from interpflow.agent.rules.actions import Action
from interpflow.agent.rules.claims import MEASURE, METRIC, AnomalyClaim
from interpflow.agent.work.session import View

_TEXTS = {
    "no_op": "Block {0} does nothing: without it the loss on neutral text stays the same.",
    "duplicated": "Block {0} is there once too often: without it the loss falls.",
    "swapped": "Blocks {0} and {1} stand in each other's place: exchanged, the loss falls.",
    "scaled": "Block {0} writes too much or too little: times {factor:g} the loss falls.",
}


def decide_claim(
    view: View, claim: AnomalyClaim, probability: float, *, larger: bool = False
) -> Generator[Action, Mapping[str, Any], str]:
    """Hypothesize, preregister and run the test that decides a claim; its verdict, "" without.

    larger: where the usual number of units has too little power, twice as many are registered, and
    nothing where that is too few too.
    """
    text = _TEXTS[claim.kind].format(*claim.blocks, factor=claim.factor or 1.0)
    return (
        yield from decide(
            {"text": text, "scope": "neutral text", "claim": claim.to_dict()},
            {
                "plan": claim.plan,
                "measure": MEASURE,
                "metric": METRIC,
                "prediction": claim.prediction(view.settings.smallest_effect),
                "n": view.settings.n_units,
            },
            probability,
            larger=larger,
        )
    )


def decide(
    hypothesis: Mapping[str, Any], test: Mapping[str, Any], probability: float, *,
    larger: bool = False,
) -> Generator[Action, Mapping[str, Any], str]:  # fmt: skip
    """Hypothesize, preregister and run; the verdict, "" where something of it was refused.

    hypothesis, test: arguments of the actions hypothesize and preregister; larger: see above.
    """
    entered = yield Action("hypothesize", {**hypothesis, "probability": probability})
    if "hypothesis" not in entered:
        return ""
    arguments = {**test, "hypothesis": entered["hypothesis"]["id"], "probability": probability}
    registered = yield Action("preregister", arguments)
    if larger and "power" in registered.get("where", ""):
        registered = yield Action("preregister", {**arguments, "n": 2 * arguments["n"]})
    if "registration" not in registered:
        return ""
    done = yield Action("run", {"registration": registered["registration"]["id"]})
    return done.get("result", {}).get("verdict", "")
