# Functions that the rules share: settings, and the parameters that decide when a rule runs again.
import os
import sys

sys.path.insert(0, os.path.join(workflow.basedir, "workflow_scripts"))

from interpflow.workflow.parse import parse_settings
from interpflow.workflow.plan import lexicon_files, model_files, templates_file
from interpflow.workflow.stages import COUNTING_FIGURES

SETTINGS, PLAN = parse_settings(config)
MODELS = list(SETTINGS.models)
COUNTING_MODELS = SETTINGS.counting_models()
ON_GPU = SETTINGS.execution.device == "cuda"


def parameter(name, rule, by_model=False):
    """One parameter of a rule: `spec`, `code` or `lib`."""
    if by_model:
        return lambda wildcards: PLAN.parameter(name, rule, wildcards.model)
    return PLAN.parameter(name, rule)


def mem_mb(base_mb, model=None):
    """Memory in MB: a base for Python and its libraries, twice the weights, more per attempt."""

    def needed(wildcards, attempt):
        return int((base_mb + PLAN.weights_mb(getattr(wildcards, "model", "")) * 2) * attempt)

    return needed


def a_model(*files):
    """A study's files of one model."""
    return [f"results/counting/{model}/{file}" for model in COUNTING_MODELS for file in files]
