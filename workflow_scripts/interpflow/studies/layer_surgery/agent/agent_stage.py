"""The automated researcher at work on one model of the study."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from interpflow import agent as agent_room
from interpflow.agent.conduct import run_agent
from interpflow.agent.policies.language_model import LanguageModelPolicy
from interpflow.agent.policies.policy import Policy
from interpflow.agent.policies.scientist import scientist
from interpflow.agent.work.report_pages import write_report
from interpflow.agent.work.session import TRANSCRIPT
from interpflow.config.identity import content_hash, derived_seed
from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.inference.surgery.code_version import measuring_code, source_digest
from interpflow.stats import forecasts, online_fdr, verdicts
from interpflow.studies.layer_surgery.agent.laboratory_agent import StoreLaboratory
from interpflow.studies.layer_surgery.sweep.gate_document import read_gates
from interpflow.studies.layer_surgery.sweep.laboratory import open_laboratory
from interpflow.tables.atomic import atomic_path
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

logger = logging.getLogger("layer_surgery.agent")

# Where agents work, in the store of runs.
AGENTS = "agents"
# Settings that an agent's work depends on.
READ_SETTINGS: dict[str, Any] = {
    "agent": True,
    "texts": {"max_tokens"},
    "measures": {"top_tokens", "max_new_tokens"},
}


def run_agent_stage(
    config: Config,
    name: str,
    settings: LayerSurgerySettings,
    seed: int,
    *,
    items_path: Path | str,
    texts_path: Path | str,
    intact_path: Path | str,
    gates_path: Path | str,
    store_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    tests_path: Path | str,
    report_path: Path | str,
    transcript_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Let the role `agent` experiment on a model; write the table `surgery_tests`, the document
    `agent_report` and the transcript.

    The agent works in a directory of the store, named by everything that its work depends on: a
    job that was killed goes on where it was, and runs in the store cost nothing. Raises UserError
    for a study without an agent, and for a service that fails (all that was bought is kept).
    """
    agent = settings.agent
    if agent is None:
        raise UserError("the study has no agent", where="layer_surgery.agent")
    laboratory = open_laboratory(
        name, config.models[name], settings, seed, items=read_rows(items_path, "surgery_items"),
        texts=read_rows(texts_path, "surgery_texts"), store_path=store_path, device=device,
        tokens_per_batch=tokens_per_batch,
    )  # fmt: skip
    intact = read_rows(intact_path, "surgery_intact")
    seen = StoreLaboratory(laboratory, intact, read_gates(gates_path))
    role, own_seed = config.llm.roles.agent, derived_seed(seed, name, "agent")
    spec: dict[str, Any] = {
        "model": laboratory.identity,
        "settings": settings.model_dump(mode="json", include=READ_SETTINGS),
        "role": role.model_dump(mode="json"),
        "items": [row["example_id"] for row in intact],
        "texts": sorted(laboratory.texts),
        "description": seen.describe(),
        "seed": own_seed,
        "code": [measuring_code(), _agent_code()],
    }
    directory = Path(store_path) / AGENTS / content_hash(spec)
    if (directory / TRANSCRIPT).is_file():
        logger.info("the agent goes on in %s", directory)
    outcome = run_agent(agent, seen, policy_of(config), directory, own_seed, code=measuring_code())
    write_report(outcome.document, directory)
    write_table(tests_path, "surgery_tests", outcome.tests, provenance)
    write_document(report_path, "agent_report", {"model": name, **outcome.document}, provenance)
    with atomic_path(transcript_path) as temporary:
        temporary.write_bytes((directory / TRANSCRIPT).read_bytes())


def _agent_code() -> str:
    """Digest of what an agent is: a transcript goes on only under the rules that it began with,
    those of verdicts and levels among them."""
    own = sorted(Path(str(agent_room.__file__)).parent.rglob("*.py"))
    deciding = [Path(str(module.__file__)) for module in (verdicts, online_fdr, forecasts)]
    return source_digest([*own, *deciding])


def policy_of(config: Config) -> Policy:
    """Who plays the role `agent`: offline the fixed-policy scientist, else a language model."""
    role = config.llm.roles.agent
    if role.provider == "offline":
        return scientist()
    return LanguageModelPolicy(role, config.llm, config.models)
