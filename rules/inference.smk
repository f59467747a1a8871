# The one pass of each model over each study's prompts: answers and activations together.


rule counting_inference:
    input:
        examples="results/counting/examples.parquet",
        validation="results/counting/validation.json",
        manifest="results/models/{model}/manifest.json",
        templates=templates_file(SETTINGS),
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        answers="results/counting/{model}/answers.parquet",
        activations=directory("results/counting/{model}/activations"),
    log:
        "logs/counting_inference/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=120,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "counting_inference", by="model"),
        code=parameter("code", "counting_inference", by="model"),
        lib=parameter("lib", "counting_inference", by="model"),
    script:
        "../workflow_scripts/counting_inference.py"


rule robustness_inference:
    input:
        examples="results/robustness/examples.parquet",
        table="results/robustness/validation.parquet",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        answers="results/robustness/{model}/answers.parquet",
        samples="results/robustness/{model}/samples.parquet",
        activations=directory("results/robustness/{model}/activations"),
    log:
        "logs/robustness_inference/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    priority: 1  # the longest chain of jobs
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=240,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "robustness_inference", by="model"),
        code=parameter("code", "robustness_inference", by="model"),
        lib=parameter("lib", "robustness_inference", by="model"),
    script:
        "../workflow_scripts/robustness_inference.py"
