"""Measure how states and attention change between a prompt and its variants."""

from typing import TYPE_CHECKING

from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.inside.internals import run_internals
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_internals(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        RobustnessSettings.model_validate({"analysis": this.spec["analysis"]}),
        this.seed,
        examples_path=this.inputs["examples"],
        answers_path=this.inputs["answers"],
        activations_path=this.inputs["activations"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        shifts_path=this.outputs["shifts"],
        attention_path=this.outputs["attention"],
        neurons_path=this.outputs["neurons"],
        map_path=this.outputs["map"],
        estimates_path=this.outputs["estimates"],
        probes_path=this.outputs["probes"],
        provenance=this.provenance,
    )
