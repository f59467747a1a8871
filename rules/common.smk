# Functions that the rules share: settings, and the parameters that decide when a rule runs again.
import os
import re
import sys

sys.path.insert(0, os.path.join(workflow.basedir, "workflow_scripts"))

from interpflow.workflow.parse import check_start, parse_settings
from interpflow.workflow.layer_surgery_stages import (
    has_agent,
    judges_free,
    judges_agents,
    layer_surgery_figures,
    writes_items,
)
from interpflow.workflow.plan import (
    claim_files,
    comparison_files,
    item_files,
    lexicon_files,
    model_files,
    preservation_files,
    report_templates,
    reward_files,
    round_files,
    task_files,
    templates_file,
)
from interpflow.workflow.robustness_stages import (
    ROBUSTNESS_FIGURES,
    asks_meanings,
    asks_rewrites,
    compares_answers,
    judges_answers,
)
from interpflow.workflow.stages import COUNTING_FIGURES, written_rounds

SETTINGS, PLAN = parse_settings(config)
MODELS = list(SETTINGS.models)
COUNTING_MODELS = SETTINGS.counting_models()
ROBUSTNESS_MODELS = SETTINGS.robustness_models()
LAYER_SURGERY_MODELS = SETTINGS.layer_surgery_models()
ON_GPU = SETTINGS.execution.device == "cuda"


def one_of(names):
    """A wildcard that stands for one of these names only; for none where there are none."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


# A path of an unknown model is a path that no rule makes, not a failure inside a rule.
wildcard_constraints:
    model=one_of(COUNTING_MODELS),
    name=one_of(SETTINGS.reference_models.names),
    seed=r"\d+",
    round=one_of(map(str, range(1, written_rounds(SETTINGS) + 1))),


def parameter(name, rule, by=""):
    """One parameter of a rule: `spec`, `code` or `lib`; `by` names the rule's own wildcard.

    A function, as Snakemake would take what stands in braces in a text for a wildcard: a spec holds
    settings such as "Q: {question}".
    """
    if by:
        return lambda wildcards: PLAN.parameter(name, rule, wildcards[by])
    return lambda wildcards: PLAN.parameter(name, rule)


def inspection_parameter(name, script):
    """One parameter of a target that prints, as `parameter` gives it."""
    return lambda wildcards: PLAN.inspection_parameter(name, script)


def mem_mb(base_mb):
    """Memory in MB: a base for Python and its libraries, twice the weights, more per attempt."""

    def needed(wildcards, attempt):
        return int(
            (base_mb + PLAN.weights_mb(getattr(wildcards, "model", "")) * 2) * attempt
        )

    return needed


def a_model(*files):
    """The counting study's files of each model."""
    return [
        f"results/counting/{model}/{file}"
        for model in COUNTING_MODELS
        for file in files
    ]


def robustness_files(*files):
    """The robustness study's files of each model."""
    return [
        f"results/robustness/{model}/{file}"
        for model in ROBUSTNESS_MODELS
        for file in files
    ]


def layer_surgery_files(*files):
    """The layer surgery study's files of each model."""
    return [
        f"results/layer_surgery/{model}/{file}"
        for model in LAYER_SURGERY_MODELS
        for file in files
    ]


def free_answers(file):
    """What judges made of a model's free answers, where the config has such items."""
    return f"results/layer_surgery/{{model}}/{file}" if judges_free(SETTINGS) else []


def scored(model, table, wanted):
    """A table of scores of a model's answers, where the config asks for it."""
    return f"results/robustness/{model}/{table}.parquet" if wanted else []
