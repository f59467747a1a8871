"""Compare the meaning of answers to variants with that of answers to clean prompts."""

from typing import TYPE_CHECKING

from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.answers.semantics import compare_answers
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    scoring = {key: this.spec[key] for key in ("embedding", "nli")}
    compare_answers(
        this.spec["model"],
        RobustnessSettings.model_validate({"scoring": scoring}),
        answers_path=this.inputs["answers"],
        samples_path=this.inputs["samples"],
        device=this.device,
        semantics_path=this.outputs["semantics"],
        provenance=this.provenance,
    )
