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
