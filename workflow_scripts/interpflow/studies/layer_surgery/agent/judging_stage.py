"""Agents judged: what each policy finds in altered copies of a model, and claims of the model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from interpflow.agent.policies.fixed_sweep import fixed_sweep
from interpflow.agent.policies.language_model import LanguageModelPolicy
from interpflow.agent.policies.policy import Policy
from interpflow.agent.policies.random_policy import random_policy
from interpflow.agent.policies.scientist import scientist
from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryAgent
from interpflow.config.settings import Config
from interpflow.engine import load
from interpflow.engine.layers.altered import planted
from interpflow.engine.layers.altered_gate import check_planted
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.inference.surgery.rows import ScoredRow, text_rows
from interpflow.models.named import load_named
from interpflow.studies.layer_surgery.agent.judged_runs import Judged, judged_rows
from interpflow.studies.layer_surgery.agent.judging_document import judging_document
from interpflow.studies.layer_surgery.agent.judging_estimates import UNALTERED, judging_estimates
from interpflow.studies.layer_surgery.agent.planted_models import (
    FELT,
    Truths,
    anomaly_sizes,
    drawn_anomalies,
)
from interpflow.studies.layer_surgery.agent.text_laboratory import TextRuns
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

logger = logging.getLogger("layer_surgery.judging")

# Units that tests can take, over those that they take by the settings: a policy may double a test.
SPARE = 1.25
N_GATED = 4  # documents that the gates read


def judge_agents(
    config: Config,
    name: str,
    settings: LayerSurgerySettings,
    seed: int,
    *,
    texts_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    judging_path: Path | str,
    estimates_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `surgery_judging` and `estimates` and the document `agent_judging`.

    Judged on neutral text alone, in float32, in memory: the models exist for this job only. Raises
    UserError for a study without an agent and for too few documents, RuntimeError where a planted
    model does not compute what it should.
    """
    if settings.agent is None:
        raise UserError("the study has no agent", where="layer_surgery.agent")
    judging, agent = settings.judging, judged_settings(settings)
    module, tokenizer = load_named(name, config.models[name], device=device)
    model = load(module, tokenizer=tokenizer, dtype="float32", device=device)
    explore, confirm = pools(model, read_rows(texts_path, "surgery_texts"), settings)

    def runs_of(model: Model) -> TextRuns:
        return TextRuns(
            model, explore, confirm, neutral=[row.tokens for row in explore],
            seed=derived_seed(seed, "resample"), tokens_per_batch=tokens_per_batch,
        )  # fmt: skip

    unaltered, least = runs_of(model), agent.smallest_effect
    anomalies, wanting = drawn_anomalies(
        judging.plants, judging.places, model.n_layers, derived_seed(seed, name, "planted"),
        lambda some: anomaly_sizes(unaltered, some), FELT * least,
    )  # fmt: skip
    policies = policies_of(config, settings)
    gates: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    judged: list[Judged] = []
    for number, anomaly in enumerate([None, *anomalies]):
        runs = unaltered
        if anomaly is not None:
            copied = planted(model, anomaly)
            report = check_planted(
                model, copied, anomaly, [row.tokens for row in explore[:N_GATED]]
            )
            gates += report.to_rows()
            runs = runs_of(copied)
        one = Judged(
            str(anomaly or UNALTERED), runs, Truths(anomaly, runs, unaltered, agent.smallest_effect)
        )
        rows += judged_rows(one, policies, agent, range(judging.seeds), derived_seed(seed, name))
        judged.append(one)
        logger.info(
            "agents judged on %d of %d models: %s", number + 1, 1 + len(anomalies), one.name
        )
    analysis = settings.analysis
    estimates = judging_estimates(
        rows, level=analysis.level, n_permutations=analysis.n_permutations,
        seed=derived_seed(seed, name, "judging"),
    )  # fmt: skip
    write_table(judging_path, "surgery_judging", rows, provenance)
    write_table(
        estimates_path, "estimates",
        [{"study": "layer_surgery", "model": name, **row} for row in estimates], provenance,
    )  # fmt: skip
    document = judging_document(
        name, rows, estimates, judged, agent=agent, wanting=wanting, gates=gates
    )
    write_document(document_path, "agent_judging", document, provenance)
    logger.info("%s", document["sentence"])


def judged_settings(settings: LayerSurgerySettings) -> SurgeryAgent:
    """The agent's settings for a judged session: the same budget, tests of fewer units."""
    assert settings.agent is not None
    return settings.agent.model_copy(update={"n_units": settings.judging.n_units})


def policies_of(
    config: Config, settings: LayerSurgerySettings
) -> Mapping[str, Callable[[], Policy]]:
    """Who is judged, by name. Raises UserError for a language model that is none."""
    known: dict[str, Callable[[], Policy]] = {
        "offline": partial(scientist, anomalies_only=True),
        "random": random_policy,
        "fixed_sweep": fixed_sweep,
    }
    found = {name: known[name] for name in settings.judging.policies}
    if settings.judging.with_agent:
        role = config.llm.roles.agent
        if role.provider == "offline":
            raise UserError(
                "the role agent is offline: there is no language model to judge",
                where="layer_surgery.judging.with_agent",
                remedy="name a model in llm.roles.agent, or set with_agent: false",
            )
        found["agent"] = lambda: LanguageModelPolicy(role, config.llm, config.models)
    return found


def pools(
    model: Model, texts: Sequence[Mapping[str, Any]], settings: LayerSurgerySettings
) -> tuple[list[ScoredRow], list[ScoredRow]]:
    """Documents that may be explored and those that tests read, cut to the judging's length.

    Raises UserError where there are fewer than one test takes.
    """
    assert settings.agent is not None
    judging = settings.judging
    chosen = {
        "explored": [t for t in texts if t["use"] == "measure" and t["split"] != "confirm"],
        "tested": [t for t in texts if t["use"] == "agent"],
    }
    n_tested = math.ceil(SPARE * settings.agent.budget.confirmatory * judging.n_units)
    wanted = {"explored": judging.n_explored, "tested": n_tested}
    found = {}
    for pool, some in chosen.items():
        ordered = sorted(some, key=lambda text: text["document_id"])
        scored = text_rows(model.tokenizer, ordered, judging.max_tokens, model.max_length).rows
        found[pool] = list(scored.values())[: wanted[pool]]
    least = {"explored": 2, "tested": judging.n_units}
    for pool, rows in found.items():
        if len(rows) < least[pool]:
            raise UserError(
                f"{len(rows)} documents can be {pool}, and judging needs {least[pool]}",
                where="layer_surgery.texts",
                remedy=f"raise {'n_documents' if pool == 'explored' else 'n_agent'}; of a file of "
                "texts, give a longer one",
            )
    return found["explored"], found["tested"]
