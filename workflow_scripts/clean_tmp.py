"""Delete what a killed run left half written."""

from pathlib import Path
from typing import TYPE_CHECKING

from interpflow.config.load import parse_config
from interpflow.workflow.clean import clean_temporary
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    clean_temporary()
    study = parse_config(this.config).layer_surgery
    if study is not None:
        clean_temporary(Path(study.store), is_shared=True)
