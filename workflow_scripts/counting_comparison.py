"""Compare the models of the counting study on the same prompts."""

from typing import TYPE_CHECKING

from interpflow.studies.counting.comparison import compare
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    compare(
        dict(zip(this.spec["models"], this.inputs["answers"], strict=True)),
        this.outputs["estimates"],
        provenance=this.provenance,
        contaminated=this.spec["contaminated"],
    )
