"""What of the study's settings can be known to be wrong before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings
from interpflow.config.settings import Config
from interpflow.embedding.entailment import entailment_label
from interpflow.embedding.model_files import BUILT_IN as BUILT_IN_EMBEDDING
from interpflow.embedding.model_files import check_model_files
from interpflow.errors import UserError, named
from interpflow.models import reward
from interpflow.models.files import read_config
from interpflow.studies.models import known_shape
from interpflow.studies.robustness.data.base_items import study_items
from interpflow.studies.robustness.data.cells import CLEAN, GIVEN, planned_cells
from interpflow.tasks.item_files import Entry, read_entries
from interpflow.tasks.item_rows import check_dataset, file_rows
from interpflow.tasks.perturbations import styles
from interpflow.tasks.perturbations.operators import operator_named
from interpflow.tasks.rewriting import STYLES as ASKED_STYLES

# A larger file is read by the job alone: this check comes with every start of the workflow.
MAX_CHECKED_BYTES = 20_000_000
SENTENCE_MODEL = "modules.json"
A_SLIP = 0.8  # likeness from which a style of one's own is taken for a slip in a known one
NO_GOLD = (
    "prompts without a gold answer have no accuracy, no log-probability of it, and no patching"
)


def check_study(config: Config) -> None:
    """Raise UserError for the first thing that cannot work, naming the key or file.

    Nothing is downloaded or loaded. The embedded reward model has a check of its own.
    """
    study = config.robustness
    if study is None:
        return
    _check_operators(study)
    _check_styles(config, study)
    entries = _entries(study)
    _check_primary(study, entries)
    _check_judge(config, study, entries)
    for name in config.robustness_models():
        _check_model(name, config.models[name], study)
    for entry in study.scoring.reward_models:
        if entry != reward.BUILT_IN:
            with named("robustness.scoring.reward_models"):
                reward.check_reward_files(entry)
    _check_embedding(study.semantics.embedding, "robustness.semantics.embedding")
    _check_embedding(study.scoring.embedding, "robustness.scoring.embedding")
    _check_entailment(study.scoring.nli)


def check_built_in_reward(config: Config) -> None:
    """Raise UserError where the embedded reward model is named and not there. Apart from the rest,
    as it is made by a target that must start without it."""
    study = config.robustness
    if study is not None and reward.BUILT_IN in study.scoring.reward_models:
        with named("robustness.scoring.reward_models"):
            reward.check_reward_files(reward.BUILT_IN)


def has_gold(config: Config) -> bool | None:
    """Whether the prompts have gold answers, all of them; None where that is not known yet."""
    study = config.robustness
    if study is None or study.data.source == "word_problems":
        return True
    if study.data.source == "instructions":
        return False  # few of them ask for one right answer
    entries = _entries(study)
    if study.data.columns.answer is not None:
        return True
    return None if entries is None else all(each.has_gold for each in entries)


def _check_operators(study: RobustnessSettings) -> None:
    asked = study.perturbations
    for key, names in (("operators", asked.operators or ()), ("dose.operators",
                                                              asked.dose.operators)):  # fmt: skip
        for name in names:
            try:
                operator_named(name)
            except UserError as error:
                raise UserError(
                    error.what, where=f"robustness.perturbations.{key}", remedy=error.remedy
                ) from None
    planned_cells(study)


def _check_styles(config: Config, study: RobustnessSettings) -> None:
    """A model writes in any style; only what looks like a slip in a known one is refused."""
    wanted = study.perturbations.rewrites
    for style in wanted.styles if wanted else ():
        offline = config.llm.roles.generator.provider == "offline"
        known = styles.STYLES if offline else tuple(ASKED_STYLES)
        near = difflib.get_close_matches(style, known, n=1, cutoff=0.5 if offline else A_SLIP)
        if style in known or not (offline or near):
            continue
        hint = f"did you mean {near[0]!r}? " if near else ""
        other = "; llm.roles.generator: a language model writes in others as well"
        raise UserError(
            f"{'the offline generator has no' if offline else 'there is no'} style {style!r}",
            where="robustness.perturbations.rewrites.styles",
            remedy=f"{hint}known: {', '.join(known)}{other if offline else ''}",
        )


def _entries(study: RobustnessSettings) -> list[Entry] | None:
    """The usable prompts of a file; None of another source, and of a file too large to be read
    before the job that reads it."""
    data = study.data
    if data.dataset is not None:
        check_dataset(data.dataset)
    if data.path is None:
        return None
    path = Path(data.path).expanduser()
    if path.is_file() and path.stat().st_size > MAX_CHECKED_BYTES:
        return None
    with named("robustness.data.path"):
        found = read_entries(file_rows(path), data.columns, source="file", where=str(path))
    return [entry for entry in found if not entry.reason]


def _check_primary(study: RobustnessSettings, entries: list[Entry] | None) -> None:
    primary = study.analysis.primary
    controls = (CLEAN, "control")  # families; nothing is to be found there
    applied = {cell.operator for cell in planned_cells(study) if cell.family not in controls}
    applied |= {f"{GIVEN}{name}" for entry in entries or () for name, _ in entry.given}
    # Variants that come with the prompts have names that only the prompts tell.
    is_unread = study.data.source in ("file", "dataset") and entries is None
    if primary in applied or (is_unread and primary.startswith(GIVEN)):
        return
    near = difflib.get_close_matches(primary, sorted(applied), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"{primary!r}, of the primary endpoint, is no operator that is applied beside the controls",
        where="robustness.analysis.primary",
        remedy=f"{hint}name one that is, or add it to robustness.perturbations.operators; applied: "
        f"{', '.join(sorted(applied))}",
    )


def _check_judge(config: Config, study: RobustnessSettings, entries: list[Entry] | None) -> None:
    """The offline judge compares answers by the gold answer and knows nothing else."""
    if not study.scoring.judge:
        return
    for i, judge in enumerate(config.llm.roles.judge):
        if judge.provider != "offline":
            continue
        if study.data.source == "instructions":
            lacking: Iterable[str] = (
                item.question.text
                for item in study_items(study.data, config.seed).items
                if item.gold is None
            )
        else:
            lacking = (entry.question for entry in entries or () if not entry.has_gold)
        question = next(iter(lacking), None)
        if question is not None:
            raise UserError(
                f"the offline judge needs a gold answer, and {question[:60]!r} has none",
                where=f"robustness.scoring.judge and llm.roles.judge.{i}",
                remedy="let a language model play the judge, name the column of the answers "
                "(robustness.data.columns.answer), or set robustness.scoring.judge: false",
            )


def _check_model(name: str, settings: ModelSettings, study: RobustnessSettings) -> None:
    shape = known_shape(name, settings)
    if shape is None:
        return
    kept = study.inference.activations.layers or ()
    if kept and max(kept) >= shape.layers:
        raise UserError(
            f"layer {max(kept)} is asked for, and {name} has the layers 0 to {shape.layers - 1}",
            where="robustness.inference.activations.layers",
            remedy=f"name layers below {shape.layers}, or null for all",
        )
    if shape.context is not None and study.inference.max_new_tokens >= shape.context:
        raise UserError(
            f"an answer of {study.inference.max_new_tokens} tokens leaves no room for a prompt: "
            f"the context of {name} holds {shape.context}",
            where="robustness.inference.max_new_tokens",
            remedy="ask for shorter answers",
        )


def _check_embedding(model: str | None, key: str) -> None:
    if model is None:
        return
    directory = check_model_files(model, key)
    if directory is not None and not (directory / SENTENCE_MODEL).is_file():
        raise UserError(
            f"not a sentence-transformers model: it has no {SENTENCE_MODEL}",
            where=f"{key}: {directory}",
            remedy=f"choose one made for sentence embeddings, such as {BUILT_IN_EMBEDDING}",
        )


def _check_entailment(model: str | None) -> None:
    key = "robustness.scoring.nli"
    if model is None:
        return
    if model == BUILT_IN_EMBEDDING:
        raise UserError(
            f"{model} embeds sentences, and cannot say what follows from them",
            where=key,
            remedy="name a sequence classifier of natural-language inference, or null",
        )
    directory = check_model_files(model, key)
    if directory is not None:
        labels = read_config(directory, f"{key}: {directory}").get("id2label") or {}
        entailment_label(labels, f"{key}: {directory}")
