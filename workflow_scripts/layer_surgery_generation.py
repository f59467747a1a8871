"""Draw the items of the tasks and the neutral texts."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.studies.layer_surgery.data.generation import generate_items
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    generate_items(
        LayerSurgerySettings.model_validate(this.spec["settings"]),
        this.seed,
        written_path=this.inputs.get("written") or None,
        items_path=this.outputs["task_items"],
        texts_path=this.outputs["texts"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
