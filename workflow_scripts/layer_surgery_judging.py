"""Judge agents by what they find in models with planted anomalies."""

from typing import TYPE_CHECKING

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.load import parse_config
from interpflow.studies.layer_surgery.agent.judging_stage import judge_agents
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    judge_agents(
        parse_config(this.config),
        this.spec["model"],
        LayerSurgerySettings.model_validate(this.spec["settings"]),
        this.seed,
        texts_path=this.inputs["texts"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        judging_path=this.outputs["judging"],
        estimates_path=this.outputs["estimates"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
