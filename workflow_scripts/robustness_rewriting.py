"""Have prompts rewritten by the role generator."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.studies.robustness.data.rewriting import write_rewrites
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    write_rewrites(
        parse_config(this.config),
        rewrites_path=this.outputs["rewrites"],
        provenance=this.provenance,
    )
