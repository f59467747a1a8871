"""Patch a model over the counting pairs, behind the gates that prove that patches act."""

from typing import TYPE_CHECKING

from interpflow.config.counting import CountingPairs
from interpflow.config.model import ModelSettings
from interpflow.studies.counting.mediation import run_mediation
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    run_mediation(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        this.inputs["pairs"],
        this.inputs["benchmark"],
        CountingPairs.model_validate(this.spec["pairs"]),
        components=this.spec["mediation"]["components"],
        heads=this.spec["mediation"]["heads"],
        window=this.spec["mediation"]["window"],
        seed=this.seed,
        lexicon_path=this.spec["lexicon"],
        templates_path=this.spec["prompt_templates"],
        device=this.device,
        tokens_per_batch=this.tokens_per_batch,
        pairs_path=this.outputs["pairs"],
        effects_path=this.outputs["effects"],
        gates_path=this.outputs["gates"],
        provenance=this.provenance,
    )
