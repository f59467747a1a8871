"""Run the intact model: which tasks it solves, and the gates of layer plans."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.studies.layer_surgery.sweep.gate_stage import run_intact
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_intact(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        LayerSurgerySettings.model_validate(this.spec["settings"]),
        this.seed,
        items_path=this.inputs["task_items"],
        texts_path=this.inputs["texts"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        intact_path=this.outputs["intact"],
        document_path=this.outputs["gates"],
        provenance=this.provenance,
    )
