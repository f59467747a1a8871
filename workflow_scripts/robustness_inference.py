"""Run a model once over all prompts and variants: answers, log-probabilities, states."""

from typing import TYPE_CHECKING

from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.answers.inference import run_inference
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_inference(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        RobustnessSettings.model_validate({"inference": this.spec["inference"]}),
        this.seed,
        examples_path=this.inputs["examples"],
        validation_path=this.inputs["table"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        answers_path=this.outputs["answers"],
        samples_path=this.outputs["samples"],
        activations_path=this.outputs["activations"],
        provenance=this.provenance,
    )
