"""Reading settings: every mistake at once, each named by its key with the nearest valid name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from interpflow.config.settings import Config
from interpflow.errors import UserError


def load_config(path: Path | str) -> Config:
    """Read and validate a YAML file of settings."""
    source = Path(path)
    try:
        raw = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the config cannot be read: {reason}", where=str(source)) from error
    except yaml.YAMLError as error:
        raise UserError(f"the config is not valid YAML: {error}", where=str(source)) from error
    return parse_config(raw, where=str(source))


def any_config(config: Config | Mapping[str, Any] | Path | str) -> Config:
    """Settings as a notebook gives them: parsed, as a mapping, or the path of a YAML file."""
    if isinstance(config, Config):
        return config
    if isinstance(config, Path | str):
        return load_config(config)
    return parse_config(config, where="config")


def parse_config(raw: object, *, where: str = "config.yaml") -> Config:
    """Validate settings already parsed from YAML (Snakemake's `config`).

    Raises UserError with one line per mistake.
    """
    if not isinstance(raw, Mapping):
        raise UserError("the config must be a mapping of settings", where=where)
    try:
        return Config.model_validate(_plain(raw))
    except ValidationError as error:
        lines = [f"{_key(item['loc'])}: {_problem(item)}" for item in error.errors()]
        noun = "a mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise UserError(
            f"the config has {noun}:\n" + "\n".join(f"  - {line}" for line in lines), where=where
        ) from None


def _plain(value: Any) -> Any:
    # Snakemake hands over its own mapping types.
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part != "[key]") or "config"


def _problem(item: Any) -> str:
    value, kind = item["input"], item["type"]
    if kind == "extra_forbidden":
        valid = _fields_at(item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    if kind in ("missing", "value_error"):
        return message
    return f"{message} (found {_shown(value)})"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """Valid keys of the settings object at a location of the config."""
    model: Any = Config
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(str(part))
            model = field.annotation if field else None
        elif typing.get_origin(model) is dict:
            model = typing.get_args(model)[1]
        model = _settings_of(model)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _settings_of(annotation: Any) -> Any:
    """The settings class in an optional annotation, else the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            if option is not type(None):
                return option
    return annotation
