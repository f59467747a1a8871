"""Run the model under every layer plan."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.studies.layer_surgery.sweep.shared_store import store_of
from interpflow.studies.layer_surgery.sweep.sweep_stage import run_sweep
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_sweep(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        LayerSurgerySettings.model_validate(this.spec["settings"]),
        this.seed,
        items_path=this.inputs["task_items"],
        texts_path=this.inputs["texts"],
        intact_path=this.inputs["intact"],
        gates_path=this.inputs["gates"],
        store_path=store_of(this.config),
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        plans_path=this.outputs["plans"],
        answers_path=this.outputs["answers"],
        losses_path=this.outputs["losses"],
        generations_path=this.outputs["generations"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
