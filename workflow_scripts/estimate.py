"""Print what the configured run will cost, before anything runs."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.workflow.estimate import print_estimate
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    print_estimate(parse_config(this.spec["config"]))
