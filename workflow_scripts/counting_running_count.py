"""Test whether the running count is used, whether it is decodable, and say the verdict."""

from typing import TYPE_CHECKING

from interpflow.config.counting import CountingMediation
from interpflow.studies.counting.running_count import assess_running_count
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    assess_running_count(
        this.spec["model"],
        this.inputs["effects"],
        this.inputs["gates"],
        this.inputs["activations"],
        this.inputs["examples"],
        CountingMediation.model_validate(this.spec["mediation"]),
        this.seed,
        slopes_path=this.outputs["slopes"],
        probes_path=this.outputs["probes"],
        verdict_path=this.outputs["verdict"],
        provenance=this.provenance,
    )
