"""Check which variants keep the meaning of their prompt."""

from typing import TYPE_CHECKING

from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.data.validation import validate
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    validate(
        RobustnessSettings.model_validate(
            {
                "semantics": this.spec["semantics"],
                "perturbations": {"edit_protected": this.spec["edit_protected"]},
            }
        ),
        examples_path=this.inputs["examples"],
        made_path=this.inputs["not_made"],
        meanings_path=this.inputs.get("meanings") or None,
        table_path=this.outputs["table"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
