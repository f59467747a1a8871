"""Draw the figures of one model of the counting study."""

from snakemake.script import snakemake

from interpflow.report.counting_figures import draw_figures
from interpflow.workflow.job import job

with job(snakemake, __file__) as this:
    draw_figures(this.spec["model"], this.inputs, this.outputs)
