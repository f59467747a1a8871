"""Say, for every artifact, whether it would be made again and what changed."""

from snakemake.script import snakemake

from interpflow.config.load import parse_config
from interpflow.workflow.job import job
from interpflow.workflow.why import print_reasons

with job(snakemake, __file__) as this:
    print_reasons(parse_config(this.spec["config"]))
