"""Measure and test what each perturbation costs."""

from typing import TYPE_CHECKING

from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.costs.benchmark import benchmark
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    benchmark(
        this.spec["model"],
        RobustnessSettings.model_validate(
            {"analysis": this.spec["analysis"], "perturbations": {"dose": this.spec["dose"]}}
        ),
        this.seed,
        contaminated=this.spec["contaminated"],
        examples_path=this.inputs["examples"],
        answers_path=this.inputs["answers"],
        samples_path=this.inputs["samples"],
        rewards_path=this.inputs["rewards"],
        semantics_path=this.inputs.get("semantics") or None,
        judgements_path=this.inputs.get("judgements") or None,
        estimates_path=this.outputs["estimates"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
