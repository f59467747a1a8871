"""Print what the configured run will cost, before anything runs."""

from snakemake.script import snakemake

from interpflow.config.load import parse_config
from interpflow.workflow.estimate import print_estimate
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:
    print_estimate(parse_config(this.spec["config"]))
