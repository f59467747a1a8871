"""Check a model's files and write down what it is."""

from typing import TYPE_CHECKING

from interpflow.config.model import ModelSettings
from interpflow.studies.models import write_manifest
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    write_manifest(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        this.outputs["manifest"],
        provenance=this.provenance,
    )
