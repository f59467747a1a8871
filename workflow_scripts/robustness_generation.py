"""Make every variant of every prompt of the robustness study."""

from typing import TYPE_CHECKING

from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.data.generation import generate_examples
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    generate_examples(
        RobustnessSettings.model_validate(
            {"data": this.spec["data"], "perturbations": this.spec["perturbations"]}
        ),
        this.seed,
        rewrites_path=this.inputs.get("rewrites") or None,
        examples_path=this.outputs["examples"],
        table_path=this.outputs["not_made"],
        provenance=this.provenance,
    )
