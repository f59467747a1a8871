"""Train one embedded reference model anew."""

from interpflow.models.reference import train_reference
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:  # noqa: F821
    train_reference(this.spec["name"], this.seed, this.outputs["directory"])
