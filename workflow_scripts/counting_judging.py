"""One round of verdicts on written lists: each word by the lexicon, else by the validators."""

from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.studies.counting.written_validation import judge_round
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    config = parse_config(this.config, where="config.yaml")
    assert config.counting is not None
    judge_round(
        this.spec["round"],
        config.counting.data,
        this.seed,
        config.llm,
        config.models,
        lexicon_path=this.spec["lexicon"],
        templates_path=this.spec["prompt_templates"],
        lists_path=this.inputs["lists"],
        earlier_lists=this.inputs["earlier_lists"],
        earlier_verdicts=this.inputs["earlier_verdicts"],
        words_path=this.outputs["words"],
        verdicts_path=this.outputs["verdicts"],
        provenance=this.provenance,
    )
