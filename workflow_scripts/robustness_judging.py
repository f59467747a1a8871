"""Have answers compared by the role judge, blind and in both orders."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.studies.robustness.answers.judging import judge_answers
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    judge_answers(
        parse_config(this.config),
        this.spec["model"],
        examples_path=this.inputs["examples"],
        answers_path=this.inputs["answers"],
        judgements_path=this.outputs["judgements"],
        provenance=this.provenance,
    )
