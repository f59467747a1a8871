"""Have free answers judged by the role judge."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.studies.layer_surgery.effects.free_answers_stage import judge_free_answers
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    judge_free_answers(
        parse_config(this.config),
        this.spec["model"],
        items_path=this.inputs["task_items"],
        data_path=this.inputs["data"],
        intact_path=this.inputs["intact"],
        gates_path=this.inputs["gates"],
        generations_path=this.inputs["generations"],
        free_path=this.outputs["answers"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
