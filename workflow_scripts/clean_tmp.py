"""Delete what a killed run left half written."""

from interpflow.workflow.clean import clean_temporary
from interpflow.workflow.job import job

with job(snakemake, __file__):  # noqa: F821
    clean_temporary()
