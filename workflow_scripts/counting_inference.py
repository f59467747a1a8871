"""Run a model once over the counting prompts: answers of every count, greedy text, activations."""

from typing import TYPE_CHECKING

from interpflow.config.base import Range
from interpflow.config.counting import CountingBenchmark
from interpflow.config.model import ModelSettings
from interpflow.studies.counting.inference import run_inference
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_inference(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        this.inputs["examples"],
        CountingBenchmark.model_validate(this.spec["benchmark"]),
        probe_lengths=Range.model_validate(this.spec["probe_lengths"]),
        probe_templates=this.spec["probe_templates"],
        templates_path=this.spec["prompt_templates"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        answers_path=this.outputs["answers"],
        activations_path=this.outputs["activations"],
        provenance=this.provenance,
    )
