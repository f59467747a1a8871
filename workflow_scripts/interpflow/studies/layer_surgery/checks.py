"""What of the study's settings can be known to be wrong before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryAgent
from interpflow.config.settings import Config
from interpflow.errors import UserError, named
from interpflow.llm.offline.template_items import check_task
from interpflow.plans.families import ALL_PLANS, FAMILIES
from interpflow.plans.requests import named_plan
from interpflow.studies.models import known_shape
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS
from interpflow.tasks.nlp.task_files import load_task_files

RESULTS = "results"


def check_layer_surgery(config: Config) -> None:
    """Raise UserError for the first thing that cannot work, naming the key or file.

    Nothing is downloaded or loaded. A hub model whose files are not here yet is checked in its
    first job.
    """
    study = config.layer_surgery
    if study is None:
        return
    tasks = study_tasks(study)
    for name in study.search.tasks or ():
        _check_known(name, tasks, "layer_surgery.search.tasks")
    if study.tasks.written is not None and config.llm.roles.generator.provider == "offline":
        for name in study.tasks.written.tasks:
            check_task(name)
    _check_texts(study)
    _check_store(study)
    _check_generating(study)
    _check_own_plans(study)
    if study.agent is not None:
        _check_agent(config, study, study.agent)
    for name in config.layer_surgery_models():
        shape = known_shape(name, config.models[name])
        if shape is None:
            continue
        for number, request in enumerate(study.plans.own):
            where = f"layer_surgery.plans.own[{number}], model {name}"
            named_plan(request, shape.layers, shape.heads, where=where)
        if shape.context is not None and study.texts.max_tokens > shape.context:
            raise UserError(
                f"documents of {study.texts.max_tokens} tokens do not fit into the context of "
                f"{name}, which holds {shape.context}",
                where="layer_surgery.texts.max_tokens",
                remedy=f"cut documents after {shape.context} tokens or fewer",
            )


def study_tasks(study: LayerSurgerySettings) -> list[str]:
    """Names of all tasks of the study. Raises UserError for one that does not exist, and for a
    task file that is wrong."""
    for name in study.tasks.builtin or ():
        _check_known(name, BUILTIN_TASKS, "layer_surgery.tasks.builtin")
    with named("layer_surgery.tasks.files"):
        own = [item.task for item in load_task_files(study.tasks.files).items]
    written = list(study.tasks.written.tasks) if study.tasks.written else []
    builtin = BUILTIN_TASKS if study.tasks.builtin is None else study.tasks.builtin
    return list(dict.fromkeys([*builtin, *own, *written]))


def _check_known(name: str, known: Iterable[str], key: str) -> None:
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"there is no task {name!r}", where=key, remedy=f"{hint}tasks: {', '.join(known)}"
    )


def _check_texts(study: LayerSurgerySettings) -> None:
    path = study.texts.path
    if path is None:
        return
    if Path(path).suffix not in (".txt", ".jsonl"):
        raise UserError(
            f"texts cannot be read from {path}",
            where="layer_surgery.texts.path",
            remedy="give a .txt file with a document a line, or a .jsonl file with the key text",
        )
    if not Path(path).is_file():
        raise UserError(
            f"there is no file {path}", where="layer_surgery.texts.path", remedy="check the path"
        )


def _check_generating(study: LayerSurgerySettings) -> None:
    known = (*FAMILIES, ALL_PLANS)
    for name in study.measures.generate:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"there is no family of plans {name!r}",
                where="layer_surgery.measures.generate",
                remedy=f"{hint}families: {', '.join(known)}",
            )


def _check_own_plans(study: LayerSurgerySettings) -> None:
    for number, request in enumerate(study.plans.own):
        if request.get("method") == "patch" or "~patch" in str(request.get("steps", "")):
            raise UserError(
                "plans of the sweep run on neutral texts too, which have nothing to be patched "
                "from",
                where=f"layer_surgery.plans.own[{number}]",
                remedy="ablate by zero, mean or resample; an agent and a notebook can patch the "
                "answers of a task",
            )


def _check_agent(config: Config, study: LayerSurgerySettings, agent: SurgeryAgent) -> None:
    """Who plays the agent, and that its tests have documents to read."""
    role, judging = config.llm.roles.agent, study.judging
    if role.provider == "local":
        raise UserError(
            "the agent acts by calling tools, and a local model calls none",
            where="llm.roles.agent",
            remedy="let a service play the role, or provider: offline",
        )
    if role.batch:
        raise UserError(
            "an agent decides one action at a time: nothing can be asked in batches",
            where="llm.roles.agent.batch",
            remedy="leave batch out",
        )
    if judging.plants and judging.with_agent and role.provider == "offline":
        raise UserError(
            "the role agent is offline: there is no language model to judge",
            where="layer_surgery.judging.with_agent",
            remedy="name a model in llm.roles.agent, or set with_agent: false",
        )
    needed = {"agent": agent.n_units} | ({"judging": judging.n_units} if judging.plants else {})
    for part, n_units in needed.items():
        if study.texts.n_agent < n_units:
            raise UserError(
                f"a test reads {n_units} documents, and {study.texts.n_agent} are for the agent's "
                "tests",
                where=f"layer_surgery.texts.n_agent and layer_surgery.{part}.n_units",
                remedy=f"raise n_agent: {agent.budget.confirmatory} tests read "
                f"{agent.budget.confirmatory * n_units}",
            )


def _check_store(study: LayerSurgerySettings) -> None:
    if Path(study.store).resolve().is_relative_to(Path(RESULTS).resolve()):
        raise UserError(
            "the store of runs lies among the results, which may be deleted to be made again",
            where="layer_surgery.store",
            remedy="name a directory beside results/, such as experiments",
        )
