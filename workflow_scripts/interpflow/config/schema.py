"""The JSON schema of config.yaml, for editors: `python -m interpflow.config.schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from interpflow.config.settings import Config
from interpflow.paths import RESOURCES_DIR

SCHEMA_PATH = RESOURCES_DIR / "config.schema.json"


def config_schema() -> dict[str, Any]:
    """The schema as editors read it (JSON Schema 2020-12)."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def write_schema(path: Path = SCHEMA_PATH) -> None:
    path.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write_schema()
