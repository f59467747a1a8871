"""Score every answer by reward models, asked as typed and asked clean."""

from typing import TYPE_CHECKING

from interpflow.config.robustness import RobustnessSettings
from interpflow.studies.robustness.answers.rewards import score_rewards
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    scoring = {key: this.spec[key] for key in ("reward_models", "reward_max_tokens")}
    score_rewards(
        this.spec["model"],
        RobustnessSettings.model_validate({"scoring": scoring}),
        examples_path=this.inputs["examples"],
        answers_path=this.inputs["answers"],
        samples_path=this.inputs["samples"],
        device=this.device,
        rewards_path=this.outputs["rewards"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
