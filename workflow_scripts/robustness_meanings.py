"""Ask the role validator whether variants keep their meaning."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.studies.robustness.data.rewriting import judge_meanings
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    judge_meanings(
        parse_config(this.config),
        examples_path=this.inputs["examples"],
        meanings_path=this.outputs["meanings"],
        provenance=this.provenance,
    )
