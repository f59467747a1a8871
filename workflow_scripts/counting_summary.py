"""Gather the counting study's headline numbers, gates and verdicts."""

from interpflow.studies.counting.summary import summarise
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:  # noqa: F821
    summarise(
        this.spec["models"],
        this.inputs,
        this.outputs["summary"],
        provenance=this.provenance,
    )
