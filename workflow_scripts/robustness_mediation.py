"""Patch clean states into damaged prompts and back, behind gates."""

from typing import TYPE_CHECKING

from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.patches.mediation import run_mediation
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_mediation(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        RobustnessSettings.model_validate({"mediation": this.spec["mediation"]}),
        this.seed,
        examples_path=this.inputs["examples"],
        answers_path=this.inputs["answers"],
        benchmark_path=this.inputs["benchmark"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        pairs_path=this.outputs["pairs"],
        effects_path=this.outputs["effects"],
        tokens_path=this.outputs["tokens"],
        gates_path=this.outputs["gates"],
        provenance=this.provenance,
    )
