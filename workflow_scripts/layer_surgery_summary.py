"""Gather the headline numbers and gates of the layer surgery study."""

from typing import TYPE_CHECKING

from interpflow.studies.layer_surgery.summary import summarise
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    summarise(
        this.spec["models"],
        this.inputs,
        this.outputs["summary"],
        provenance=this.provenance,
    )
