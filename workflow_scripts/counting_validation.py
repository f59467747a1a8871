"""Check the counting data by rules of its own; stop the run where a gate fails."""

from typing import TYPE_CHECKING

from interpflow.config.counting import CountingValidation
from interpflow.studies.counting.validation import validate
from interpflow.studies.counting.written_state import written_rounds_of
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    validate(
        this.inputs["examples"],
        this.inputs["pairs"],
        CountingValidation.model_validate(this.spec["validation"]),
        this.seed,
        lexicon_path=this.spec["lexicon"],
        table_path=this.outputs["table"],
        document_path=this.outputs["document"],
        rounds=written_rounds_of(this.inputs),
        provenance=this.provenance,
    )
