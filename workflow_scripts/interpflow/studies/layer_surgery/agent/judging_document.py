"""The judging in words and numbers: who found what, who claimed what is false, who is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from interpflow.config.layer_surgery import SurgeryAgent
from interpflow.studies.layer_surgery.agent.judged_runs import Judged
from interpflow.studies.layer_surgery.agent.judging_estimates import ALL, UNALTERED

Row = Mapping[str, Any]


def judging_document(
    name: str,
    rows: Sequence[Row],
    estimates: Sequence[Row],
    judged: Sequence[Judged],
    *,
    agent: SurgeryAgent,
    wanting: Mapping[str, int],
    gates: Sequence[Row],
) -> dict[str, Any]:
    """Content of the document `agent_judging`.

    models: each with the anomaly and what it costs, measured on the altered model; wanting: by
    kind, the places at which it would have cost too little to be found; present: claims that were
    confirmed and hold without being planted, with the mean change of the loss over all documents.
    """
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    better = [_comparison(row) for row in estimates
              if row["analysis"] == "advantage" and row["level"] == ALL]  # fmt: skip
    return {
        "model": name,
        "alpha": agent.alpha,
        "smallest_effect": agent.smallest_effect,
        "budget": agent.budget.model_dump(),
        "n_units": agent.n_units,
        "documents": {
            "explore": len(judged[0].runs.explore), "confirm": len(judged[0].runs.confirm)
        },
        "models": [_model(one, judged[0]) for one in judged],
        "wanting": dict(wanting),
        "gates": list(gates),
        "spent": {policy: _spent(rows, policy) for policy in policies},
        "policies": {policy: _policy(estimates, policy) for policy in policies},
        "comparisons": better,
        "sentence": _sentence(name, estimates, policies, better, agent.alpha),
    }  # fmt: skip


def _model(one: Judged, unaltered: Judged) -> dict[str, Any]:
    runs, anomaly = one.runs, one.anomaly
    units = (*runs.explore, *runs.confirm)
    loss = runs.loss(units)
    return {
        "name": one.name,
        "plant": anomaly.kind if anomaly else UNALTERED,
        "blocks": list(anomaly.blocks) if anomaly else [],
        "factor": anomaly.factor if anomaly else None,
        "loss": loss,
        "cost": loss - unaltered.runs.loss(units),
        "present": dict(one.truths.present),
    }


def _spent(rows: Sequence[Row], policy: str) -> dict[str, float]:
    """Means over runs; all had the same budget."""
    mine = [row for row in rows if row["policy"] == policy]
    return {key: fmean(row[key] for row in mine) for key in ("n_tests", "forward_tokens")}


def _policy(estimates: Sequence[Row], policy: str) -> dict[str, Any]:
    def of(analysis: str) -> dict[str, dict[str, Any]]:
        keys = ("estimate", "ci_low", "ci_high", "n_units", "n_clusters", "flags")
        return {
            row["level"]: {key: row[key] for key in keys}
            for row in estimates
            if row["analysis"] == analysis and row["factor"] == policy
        }

    return {
        "discovery": of("discovery"),
        "false_claims": of("false_claims"),
        "true_share_of_claims": of("claims_true"),
        "placebos": of("placebos"),
        "forecasts": of("forecasts"),
    }


def _comparison(row: Row) -> dict[str, Any]:
    """better: who discovers more by the sign-flip test over models, Holm over pairs of policies;
    "" where that is not shown, as on a model or two, however alike they are."""
    first, second = row["factor"].split(" - ")
    better = ""
    if row["p_adjusted"] is not None and row["p_adjusted"] <= 1 - row["ci_level"]:
        better = first if row["estimate"] > 0 else second
    keys = ("estimate", "ci_low", "ci_high", "ci_level", "p_value", "p_adjusted", "n_clusters")
    return {"first": first, "second": second, "better": better, **{key: row[key] for key in keys}}


def _sentence(
    name: str, estimates: Sequence[Row], policies: Sequence[str], better: Sequence[Row],
    alpha: float,
) -> str:  # fmt: skip
    found = {(row["analysis"], row["factor"], row["level"]): row for row in estimates}
    parts = []
    for policy in policies:
        rate = found.get(("discovery", policy, ALL))
        wrong = found.get(("false_claims", policy, UNALTERED))
        text = policy
        if rate is not None:
            text += f" finds {rate['estimate']:.0%} of what was planted"
        if wrong is not None:
            text += (
                f"{' and' if rate is not None else ''} claims something false of {name} as it is "
                f"in {wrong['estimate']:.0%} of {wrong['n_units']} runs (at most "
                f"{wrong['ci_high']:.0%}, {wrong['ci_level']:.0%} bound; alpha {alpha:g})"
            )
        parts.append(text)
    compared = [_compared(each) for each in better]
    return "; ".join([*parts, *compared]) + "."


def _compared(row: Row) -> str:
    between = f"{row['first']} and {row['second']}"
    if row["ci_low"] is None:
        return f"{between} differ by {row['estimate']:+.0%} on every model"
    interval = f"{row['estimate']:+.0%} ({row['ci_low']:+.0%} to {row['ci_high']:+.0%})"
    if not row["better"]:
        return f"no difference in discovery is shown between {between}: {interval}"
    other = row["second"] if row["better"] == row["first"] else row["first"]
    difference = f"{row['first']} less {row['second']} {interval}"
    return f"{row['better']} discovers more than {other}: {difference}"
