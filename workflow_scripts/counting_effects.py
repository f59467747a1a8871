"""Turn the effects of single pairs into tested maps: total, direct, indirect, mediated."""

from typing import TYPE_CHECKING

from interpflow.config.counting import CountingMediation
from interpflow.studies.counting.effects import estimate_effects
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    estimate_effects(
        this.spec["model"],
        this.inputs["effects"],
        this.inputs["gates"],
        CountingMediation.model_validate(this.spec["mediation"]),
        this.seed,
        map_path=this.outputs["map"],
        estimates_path=this.outputs["estimates"],
        provenance=this.provenance,
    )
