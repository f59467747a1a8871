"""Compare the models of the counting study on the same prompts."""

from interpflow.studies.counting.comparison import compare
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:  # noqa: F821
    compare(
        dict(zip(this.spec["models"], this.inputs["answers"], strict=True)),
        this.outputs["estimates"],
        provenance=this.provenance,
    )
