"""Draw the figures of one model of the layer surgery study."""

from typing import TYPE_CHECKING

from interpflow.report.layer_surgery_figures import draw_figures
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    draw_figures(this.spec["model"], this.inputs, this.outputs)
