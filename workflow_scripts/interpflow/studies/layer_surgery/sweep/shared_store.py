"""Where the runs of a project are kept: one place for sweeps, searches and agents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpflow.config.load import parse_config
from interpflow.errors import UserError


def store_of(config: Mapping[str, Any]) -> Path:
    """The directory that the config names as the store. No result depends on where it is."""
    study = parse_config(config).layer_surgery
    if study is None:
        raise UserError("the layer surgery study is switched off", where="layer_surgery")
    return Path(study.store)
