# Mechanism: patches behind gates, their statistics, the running count, and the study's summary.


rule counting_mediation:
    input:
        pairs="results/counting/pairs.parquet",
        validation="results/counting/validation.json",
        benchmark="results/counting/{model}/benchmark.json",
        manifest="results/models/{model}/manifest.json",
        lexicon=lexicon_files(SETTINGS),
        templates=templates_file(SETTINGS),
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        pairs="results/counting/{model}/pairs.parquet",
        effects="results/counting/{model}/pair_effects.parquet",
        gates="results/counting/{model}/gates.json",
    log:
        "logs/counting_mediation/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=240,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "counting_mediation", by="model"),
        code=parameter("code", "counting_mediation", by="model"),
        lib=parameter("lib", "counting_mediation", by="model"),
    script:
        "../workflow_scripts/counting_mediation.py"


rule counting_effects:
    input:
        effects="results/counting/{model}/pair_effects.parquet",
        gates="results/counting/{model}/gates.json",
    output:
        map="results/counting/{model}/mediation.parquet",
        estimates="results/counting/{model}/effects.parquet",
    log:
        "logs/counting_effects/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=parameter("spec", "counting_effects", by="model"),
        code=parameter("code", "counting_effects", by="model"),
        lib=parameter("lib", "counting_effects", by="model"),
    script:
        "../workflow_scripts/counting_effects.py"


rule counting_running_count:
    input:
        effects="results/counting/{model}/pair_effects.parquet",
        gates="results/counting/{model}/gates.json",
        activations="results/counting/{model}/activations",
        examples="results/counting/examples.parquet",
    output:
        slopes="results/counting/{model}/running_count.parquet",
        probes="results/counting/{model}/probes.parquet",
        verdict="results/counting/{model}/verdict.json",
    log:
        "logs/counting_running_count/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=parameter("spec", "counting_running_count", by="model"),
        code=parameter("code", "counting_running_count", by="model"),
        lib=parameter("lib", "counting_running_count", by="model"),
    script:
        "../workflow_scripts/counting_running_count.py"


rule counting_summary:
    input:
        validation="results/counting/validation.json",
        written=(
            "results/counting/written_quality.json" if written_rounds(SETTINGS) else []
        ),
        comparison="results/counting/comparison.parquet",
        manifests=expand("results/models/{model}/manifest.json", model=COUNTING_MODELS),
        benchmarks=a_model("benchmark.json"),
        estimates=a_model("benchmark.parquet"),
        gates=a_model("gates.json"),
        effects=a_model("effects.parquet"),
        verdicts=a_model("verdict.json"),
    output:
        summary="results/counting/summary.json",
    log:
        "logs/counting_summary.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "counting_summary"),
        code=parameter("code", "counting_summary"),
        lib=parameter("lib", "counting_summary"),
    script:
        "../workflow_scripts/counting_summary.py"
