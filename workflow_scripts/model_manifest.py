"""Check a model's files and write down what it is."""

from snakemake.script import snakemake

from interpflow.config.model import ModelSettings
from interpflow.studies.models import write_manifest
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:
    write_manifest(
        this.spec["model"],
        ModelSettings.model_validate(this.spec["source"]),
        this.outputs["manifest"],
        provenance=this.provenance,
    )
