"""Write the report page."""

from snakemake.script import snakemake

from interpflow.report.page import write_report
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:
    write_report(this.spec, this.inputs, this.outputs["page"], provenance=this.provenance)
