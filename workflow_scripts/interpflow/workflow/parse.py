"""Settings as the Snakefile gets them: a mistake is one message and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.workflow.checks import check_disk, check_inputs
from interpflow.workflow.plan import Plan


def parse_settings(raw: Mapping[str, Any]) -> tuple[Config, Plan]:
    """Validate the config and all that it names, before any job."""
    try:
        config = parse_config(raw, where="config.yaml (with --configfile and --config)")
        check_inputs(config)
        check_disk(Path.cwd())
        return config, Plan(config)
    except UserError as error:
        print(f"interpflow: {error}", file=sys.stderr)
        sys.exit(1)
