"""Make the lists of the counting study and the pairs of its interventions."""

from typing import TYPE_CHECKING

from interpflow.config.counting import CountingData, CountingPairs
from interpflow.studies.counting.generation import generate
from interpflow.studies.counting.written_state import written_rounds_of
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    generate(
        CountingData.model_validate(this.spec["data"]),
        CountingPairs.model_validate(this.spec["pairs"]),
        this.seed,
        lexicon_path=this.spec["lexicon"],
        templates_path=this.spec["prompt_templates"],
        examples_path=this.outputs["examples"],
        pairs_path=this.outputs["pairs"],
        rounds=written_rounds_of(this.inputs),
        provenance=this.provenance,
    )
