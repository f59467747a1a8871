"""Delete what a killed run left half written."""

from snakemake.script import snakemake

from interpflow.workflow.clean import clean_temporary
from interpflow.workflow.job import job

with job(snakemake, __file__):
    clean_temporary()
