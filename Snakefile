# interpflow: takes language models apart. Reads and validates the config, includes the rules of
# each stage, names the public targets. Settings: config.yaml. Start: `make run`, or
# `snakemake --cores 2`.
from snakemake.utils import min_version

min_version("9.27")

if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/models.smk"
include: "rules/generation.smk"
include: "rules/validation.smk"
include: "rules/inference.smk"
include: "rules/scoring.smk"
include: "rules/benchmarking.smk"
include: "rules/mediation.smk"
include: "rules/surgery.smk"
include: "rules/agent.smk"
include: "rules/report.smk"
include: "rules/inspect.smk"


localrules:
    all,
    counting,
    robustness,
    layer_surgery,
    report,
    estimate,
    why,
    clean_tmp,


onstart:
    check_start(SETTINGS, {job.rule.name for job in workflow.dag.needrun_jobs()})


rule all:
    default_target: True
    input:
        PLAN.outputs("counting"),
        PLAN.outputs("robustness"),
        PLAN.outputs("layer_surgery"),
        PLAN.outputs("report"),


rule counting:
    input:
        PLAN.outputs("counting"),


rule robustness:
    input:
        PLAN.outputs("robustness"),


rule layer_surgery:
    input:
        PLAN.outputs("layer_surgery"),


rule report:
    input:
        PLAN.outputs("report"),
