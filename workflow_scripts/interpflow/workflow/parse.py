"""Settings as the Snakefile gets them: a mistake is one message and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.preflight import check_purchase, check_services
from interpflow.llm.roles import check_roles
from interpflow.studies.robustness.checks import check_built_in_reward
from interpflow.workflow.checks import check_disk, check_inputs
from interpflow.workflow.plan import Plan

# Rules whose jobs ask language models.
ASKING_RULES = frozenset(
    {
        "counting_writing",
        "counting_judging",
        "robustness_rewriting",
        "robustness_meanings",
        "robustness_judging",
        "layer_surgery_writing",
        "layer_surgery_free",
        "layer_surgery_agent",
        "layer_surgery_judging",
    }
)


def parse_settings(raw: Mapping[str, Any]) -> tuple[Config, Plan]:
    """Validate the config and all that it names, before any job."""
    try:
        config = parse_config(raw, where="config.yaml (with --configfile and --config)")
        check_inputs(config)
        check_roles(config)
        check_services(config)
        check_disk(Path.cwd())
        return config, Plan(config)
    except UserError as error:
        _stop(error)


def check_start(config: Config, rules: Collection[str]) -> None:
    """Before the first job: what the rules that will run need beyond what all of them need.

    A key and a cap are asked for when something will be bought, not for an estimate or a report;
    the embedded reward model when it will score.
    """
    try:
        if "robustness_rewards" in rules:
            check_built_in_reward(config)
        if not ASKING_RULES.isdisjoint(rules):
            check_purchase(config)
    except UserError as error:
        _stop(error)


def _stop(error: UserError) -> NoReturn:
    print(f"interpflow: {error}", file=sys.stderr)
    sys.exit(1)
