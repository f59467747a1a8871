"""Have items of tasks written by the role generator, and filtered."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.studies.layer_surgery.data.writing import write_items
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    write_items(
        parse_config(this.config),
        written_path=this.outputs["written"],
        provenance=this.provenance,
    )
