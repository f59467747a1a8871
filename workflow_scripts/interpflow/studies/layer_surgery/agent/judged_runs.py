"""Sessions of agents on one model, each as a row of the table `surgery_judging`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.agent.conduct import Outcome, run_agent
from interpflow.agent.policies.policy import Policy
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import SurgeryAgent
from interpflow.plans.anomalies import Anomaly
from interpflow.studies.layer_surgery.agent.judging_estimates import UNALTERED
from interpflow.studies.layer_surgery.agent.planted_models import Truths
from interpflow.studies.layer_surgery.agent.text_laboratory import TextLaboratory, TextRuns

Policies = Mapping[str, Callable[[], Policy]]


@dataclass(frozen=True, eq=False)
class Judged:
    """A model that agents are judged on, its runs, and what is true of it."""

    name: str
    runs: TextRuns
    truths: Truths

    @property
    def anomaly(self) -> Anomaly | None:
        """What was planted; None: nothing."""
        return self.truths.anomaly


def judged_rows(
    judged: Judged, policies: Policies, settings: SurgeryAgent, seeds: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Every policy on a model with every seed, all within the same budget.

    A seed draws which documents are explored (of a pool with more of them than one run explores)
    and which each test reads, and what a policy draws; it is the same for all policies, so that
    they are compared on the same documents. Time stands still: a slow machine must not take a
    policy's budget, and a language model that is asked again after a kill must read what it read,
    or its answers would be bought twice.
    """
    rows = []
    for number in seeds:
        for name, policy in policies.items():
            outcome = run_agent(
                settings, TextLaboratory(judged.runs), policy(), None,
                derived_seed(seed, "judging", judged.name, number), clock=lambda: 0.0,
            )  # fmt: skip
            rows.append(judged_row(judged, name, number, outcome))
    return rows


def judged_row(judged: Judged, policy: str, seed: int, outcome: Outcome) -> dict[str, Any]:
    """What one session came to. Claims are the distinct anomalies whose registered test was
    confirmed, placebos apart: a test that decides no anomaly makes no claim here."""
    claims = {_named(claim): claim for _, claim in outcome.confirmed}.values()
    truths = [judged.truths.of(claim) for claim in claims]
    n_false = truths.count("false")
    real = [test for test in outcome.tests if not test["is_placebo"]]
    score = outcome.forecast
    return {
        "model": judged.name,
        "plant": judged.anomaly.kind if judged.anomaly else UNALTERED,
        "planted_blocks": " ".join(map(str, judged.anomaly.blocks)) if judged.anomaly else "",
        "policy": policy,
        "seed": seed,
        "n_tests": score.n,
        "n_confirmed": sum(test["verdict"] == "CONFIRMED" for test in real),
        "n_claims": len(claims),
        "n_true": len(claims) - n_false,
        "n_false": n_false,
        "discovered": "planted" in truths if judged.anomaly else None,
        "brier": score.brier if score.n else None,
        "base_rate_brier": score.base_rate_brier if score.n else None,
        "placebo_confirmed": outcome.placebos_confirmed,
        "n_placebos": outcome.n_placebos,
        "forward_tokens": outcome.spent.forward_tokens,
        "stopped": outcome.stopped,
    }


def _named(claim: AnomalyClaim) -> tuple[str, tuple[int, ...], bool]:
    """Two factors for one block are one claim if both say that it is too weak, or too strong."""
    return claim.kind, claim.blocks, (claim.factor or 1.0) > 1.0
