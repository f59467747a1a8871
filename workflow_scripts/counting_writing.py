"""One round of lists written by the role `generator`, for the places still empty."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.studies.counting.written_lists import write_round
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    config = parse_config(this.config, where="config.yaml")
    assert config.counting is not None
    write_round(
        this.spec["round"],
        config.counting.data,
        this.seed,
        config.llm,
        config.models,
        lexicon_path=this.spec["lexicon"],
        templates_path=this.spec["prompt_templates"],
        earlier_lists=this.inputs["lists"],
        earlier_verdicts=this.inputs["verdicts"],
        lists_path=this.outputs["lists"],
        provenance=this.provenance,
    )
