"""Test what each plan costs, and evaluate the claims named beforehand."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.studies.layer_surgery.effects.effects_stage import estimate_effects
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    estimate_effects(
        this.spec["model"],
        LayerSurgerySettings.model_validate(this.spec["settings"]),
        this.seed,
        items_path=this.inputs["task_items"],
        texts_path=this.inputs["texts"],
        plans_path=this.inputs["plans"],
        intact_path=this.inputs["intact"],
        answers_path=this.inputs["answers"],
        losses_path=this.inputs["losses"],
        generations_path=this.inputs["generations"],
        free_path=this.inputs.get("free") or None,
        free_document_path=this.inputs.get("free_document") or None,
        exits_path=this.inputs["exits"],
        lens_estimates_path=this.inputs["lens_estimates"],
        estimates_path=this.outputs["estimates"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
