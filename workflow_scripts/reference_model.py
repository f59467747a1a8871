"""Train one embedded reference model anew."""

from snakemake.script import snakemake

from interpflow.models.reference import train_reference
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:
    train_reference(this.spec["name"], this.seed, this.outputs["directory"])
