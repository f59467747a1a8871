"""Score a model's answers: accuracy with floors, errors, calibration, and the input gate."""

from typing import TYPE_CHECKING

from interpflow.config.counting import CountingBenchmark
from interpflow.studies.counting.benchmark import benchmark
from interpflow.workflow.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake, __file__) as this:
    benchmark(
        this.spec["model"],
        this.inputs["answers"],
        CountingBenchmark.model_validate(this.spec["benchmark"]),
        this.seed,
        level=this.spec["level"],
        contaminated=this.spec["contaminated"],
        estimates_path=this.outputs["estimates"],
        confusion_path=this.outputs["confusion"],
        document_path=this.outputs["document"],
        provenance=this.provenance,
    )
