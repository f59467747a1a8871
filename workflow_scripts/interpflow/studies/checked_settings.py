"""Settings of a study that is run without the workflow, checked as the workflow checks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.load import any_config
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.preflight import check_purchase, check_services
from interpflow.llm.roles import check_roles
from interpflow.models.acquire import check_source_files
from interpflow.models.named import model_source

AnyConfig = Config | Mapping[str, Any] | Path | str


def configured(config: AnyConfig, study: str) -> Config:
    """The settings, in which the study has a section. Raises UserError where it has none."""
    settings = any_config(config)
    if getattr(settings, study) is None:
        raise UserError(
            f"the {study.replace('_', ' ')} study is switched off",
            where=study,
            remedy=f"add `{study}: {{}}` to the config",
        )
    return settings


def checked_settings(config: AnyConfig, study: str, *checks: Callable[[Config], None]) -> Config:
    """The settings, with all that is checked before a run of the workflow: the models' files, the
    study's own checks, and the language models that play its roles. Raises UserError."""
    settings = configured(config, study)
    names: Sequence[str] = getattr(settings, f"{study}_models")()
    for name in names:
        check_source_files(model_source(name, settings.models[name]))
    for check in checks:
        check(settings)
    check_roles(settings)
    check_services(settings)
    check_purchase(settings)
    return settings
