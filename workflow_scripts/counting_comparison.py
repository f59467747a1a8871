"""Compare the models of the counting study on the same prompts."""

from snakemake.script import snakemake

from interpflow.studies.counting.comparison import compare
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:
    compare(
        dict(zip(this.spec["models"], this.inputs["answers"], strict=True)),
        this.outputs["estimates"],
        provenance=this.provenance,
    )
