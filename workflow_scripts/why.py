"""Say, for every artifact, whether it would be made again and what changed."""

from interpflow.config.load import parse_config
from interpflow.workflow.job import job
from interpflow.workflow.why import print_reasons

with job(snakemake, __file__) as this:  # noqa: F821
    print_reasons(parse_config(this.spec["config"]))
