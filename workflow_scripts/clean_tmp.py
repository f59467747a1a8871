"""Delete what a killed run left half written."""

from typing import TYPE_CHECKING

from interpflow.workflow.clean import clean_temporary
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__):
    clean_temporary()
