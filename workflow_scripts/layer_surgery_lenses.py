"""Train and evaluate the lenses of a model."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.studies.layer_surgery.lenses.lens_stage import run_lenses
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_lenses(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        LayerSurgerySettings.model_validate(this.spec["settings"]),
        this.seed,
        items_path=this.inputs["task_items"],
        texts_path=this.inputs["texts"],
        intact_path=this.inputs["intact"],
        gates_path=this.inputs["gates"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        lens_path=this.outputs["lens"],
        lenses_path=this.outputs["lenses"],
        exits_path=this.outputs["exits"],
        trajectories_path=this.outputs["trajectories"],
        estimates_path=this.outputs["estimates"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
