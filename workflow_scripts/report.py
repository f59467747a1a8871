"""Write the report page."""

from typing import TYPE_CHECKING

from interpflow.report.page import write_report
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    write_report(this.spec, this.inputs, this.outputs["page"], provenance=this.provenance)
