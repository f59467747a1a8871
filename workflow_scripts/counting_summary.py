"""Gather the counting study's headline numbers, gates and verdicts."""

from snakemake.script import snakemake

from interpflow.studies.counting.summary import summarise
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:
    summarise(
        this.spec["models"],
        this.inputs,
        this.outputs["summary"],
        provenance=this.provenance,
    )
