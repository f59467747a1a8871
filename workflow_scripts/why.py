"""Say, for every artifact, whether it would be made again and what changed."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.workflow.job import job
from interpflow.workflow.why import print_reasons

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    print_reasons(parse_config(this.spec["config"]))
