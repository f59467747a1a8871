"""Train one embedded reference model anew."""

from typing import TYPE_CHECKING

from interpflow.models.reference import train_reference
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    train_reference(this.spec["name"], this.seed, this.outputs["directory"])
