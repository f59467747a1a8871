# The automated researcher, and how it is judged.


rule layer_surgery_agent:
    input:
        task_items="results/layer_surgery/items.parquet",
        texts="results/layer_surgery/texts.parquet",
        intact="results/layer_surgery/{model}/intact.parquet",
        gates="results/layer_surgery/{model}/gates.json",
        sweep="results/layer_surgery/{model}/sweep.json",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        tests="results/layer_surgery/{model}/agent_tests.parquet",
        report="results/layer_surgery/{model}/agent_report.json",
        transcript="results/layer_surgery/{model}/agent_transcript.jsonl",
    log:
        "logs/layer_surgery_agent/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=1440,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "layer_surgery_agent", by="model"),
        code=parameter("code", "layer_surgery_agent", by="model"),
        lib=parameter("lib", "layer_surgery_agent", by="model"),
    script:
        "../workflow_scripts/layer_surgery_agent.py"


rule layer_surgery_judging:
    input:
        texts="results/layer_surgery/texts.parquet",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        judging="results/layer_surgery/{model}/judging.parquet",
        estimates="results/layer_surgery/{model}/judging_estimates.parquet",
        document="results/layer_surgery/{model}/judging.json",
    log:
        "logs/layer_surgery_judging/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    priority: 1  # the longest chain of jobs
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=1440,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "layer_surgery_judging", by="model"),
        code=parameter("code", "layer_surgery_judging", by="model"),
        lib=parameter("lib", "layer_surgery_judging", by="model"),
    script:
        "../workflow_scripts/layer_surgery_judging.py"
