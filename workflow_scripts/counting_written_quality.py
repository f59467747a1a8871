"""How good the written lists are: labels, validators, agreement, and what a person should see."""

from typing import TYPE_CHECKING

from interpflow.studies.counting.written_quality import written_quality
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    written_quality(
        this.inputs["lists"],
        this.inputs["words"],
        this.inputs["verdicts"],
        seed=this.seed,
        document_path=this.outputs["document"],
        disagreements_path=this.outputs["disagreements"],
        provenance=this.provenance,
    )
