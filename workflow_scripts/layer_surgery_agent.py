"""Let the agent experiment on a model."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.load import parse_config
from interpflow.studies.layer_surgery.agent.agent_stage import run_agent_stage
from interpflow.studies.layer_surgery.sweep.shared_store import store_of
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_agent_stage(
        parse_config(this.config),
        this.spec["model"],
        LayerSurgerySettings.model_validate(this.spec["settings"]),
        this.seed,
        items_path=this.inputs["task_items"],
        texts_path=this.inputs["texts"],
        intact_path=this.inputs["intact"],
        gates_path=this.inputs["gates"],
        store_path=store_of(this.config),
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        tests_path=this.outputs["tests"],
        report_path=this.outputs["report"],
        transcript_path=this.outputs["transcript"],
        provenance=this.provenance,
    )
