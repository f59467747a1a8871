"""Test which layers and heads restore the answer."""

from typing import TYPE_CHECKING

from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.patches.effects import estimate_effects
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    estimate_effects(
        this.spec["model"],
        RobustnessSettings.model_validate(
            {"analysis": this.spec["analysis"], "mediation": this.spec["mediation"]}
        ),
        this.seed,
        effects_path=this.inputs["effects"],
        gates_path=this.inputs["gates"],
        map_path=this.outputs["map"],
        estimates_path=this.outputs["estimates"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
