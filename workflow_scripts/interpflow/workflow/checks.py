"""Checks that need files but no computation: what the config names must exist and fit together."""

from __future__ import annotations

import shutil
from pathlib import Path

from interpflow.config.counting import CountingSettings
from interpflow.config.settings import Config
from interpflow.errors import UserError, named
from interpflow.models.acquire import check_source_files
from interpflow.models.named import model_source
from interpflow.studies.layer_surgery.checks import check_layer_surgery
from interpflow.studies.robustness.checks import check_study
from interpflow.tasks.counting.design import check_design
from interpflow.tasks.counting.lexicon import Lexicon, load_lexicon
from interpflow.tasks.counting.prompts import load_templates
from interpflow.tasks.counting.setup import factorial_design

MIN_FREE_BYTES = 8_000_000  # Snakemake's records and logs of a run of some hundred jobs


def check_disk(directory: Path) -> None:
    """Raise UserError when the disk of the run is full: Snakemake itself could not even start."""
    free = shutil.disk_usage(directory).free
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"no space left on the disk: {free / 1e6:.1f} MB are free",
            where=str(directory),
            remedy="free some space and run the same command again; nothing is lost",
        )


def check_inputs(config: Config) -> None:
    """Raise UserError for the first thing that cannot work, naming the key or file."""
    for name, settings in config.models.items():
        check_source_files(model_source(name, settings))
    if config.counting is not None:
        _check_counting(config, config.counting)
    check_study(config)
    check_layer_surgery(config)


def _check_counting(config: Config, study: CountingSettings) -> None:
    with named("counting.lexicon"):
        lexicon = load_lexicon(Path(study.lexicon) if study.lexicon else None)
    with named("counting.prompt_templates"):
        templates = load_templates(Path(study.prompt_templates) if study.prompt_templates else None)
    known = [template.id for template in templates]
    for key, ids in (("data", study.data.templates), ("pairs", study.pairs.templates)):
        for template_id in ids or []:
            if template_id not in known:
                raise UserError(
                    f"no prompt wording {template_id!r}",
                    where=f"counting.{key}.templates",
                    remedy=f"choose from: {', '.join(known)}",
                )
    check_design(factorial_design(study.data, config.seed, lexicon, templates), lexicon)
    _check_pairs(study, lexicon)


def _check_pairs(study: CountingSettings, lexicon: Lexicon) -> None:
    """Pairs must be able to be made, and the probes need lists like those of the pairs."""
    asked = study.data.templates
    for template_id in study.pairs.templates:
        if asked is not None and template_id not in asked:
            raise UserError(
                f"the wording {template_id!r} of the pairs is not among those of the lists, whose "
                "activations the probes read",
                where="counting.pairs.templates",
                remedy=f"choose from counting.data.templates: {', '.join(asked)}",
            )
    lengths, lists = study.pairs.lengths, study.data.lengths
    if lengths.min > lists.max or lengths.max < lists.min:
        raise UserError(
            f"lists of the pairs have {lengths.min} to {lengths.max} words, the others "
            f"{lists.min} to {lists.max}: the probes would have nothing to read",
            where="counting.pairs.lengths",
            remedy="let the two ranges overlap",
        )
    if lengths.min < 2:
        raise UserError(
            "a pair needs a word before and one after the change",
            where="counting.pairs.lengths.min",
            remedy="use lists of at least 2 words",
        )
    for category in study.data.categories or lexicon.categories:
        # A prefix pair draws the words of five lists, none of them twice.
        have, needed = len(lexicon.members(category)), 2 * lengths.max
        if have < needed:
            raise UserError(
                f"category {category!r} has {have} unambiguous words, pairs of {lengths.max} words "
                f"need {needed}",
                where="counting.pairs.lengths.max",
                remedy="use shorter lists, or give the category more words",
            )
