"""Find minimal sets of blocks, and confirm them on held-out items."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.studies.layer_surgery.effects.search_stage import search_sets
from interpflow.studies.layer_surgery.sweep.shared_store import store_of
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    search_sets(
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
        sets_path=this.outputs["sets"],
        estimates_path=this.outputs["estimates"],
        provenance=this.provenance,
    )
