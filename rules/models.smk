# Which models there are, and the training of the embedded ones.


rule model_manifest:
    input:
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        manifest="results/models/{model}/manifest.json",
    log:
        "logs/model_manifest/{model}.log",
    wildcard_constraints:
        model=one_of(MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "model_manifest", by="model"),
        code=parameter("code", "model_manifest", by="model"),
        lib=parameter("lib", "model_manifest", by="model"),
    script:
        "../workflow_scripts/model_manifest.py"


rule reference_model:
    output:
        directory=directory("results/reference_models/{name}/seed{seed}"),
    log:
        "logs/reference_model/{name}-{seed}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        spec=lambda wildcards: PLAN.reference_parameter(
            "spec", wildcards.name, wildcards.seed
        ),
        code=lambda wildcards: PLAN.reference_parameter(
            "code", wildcards.name, wildcards.seed
        ),
        lib=lambda wildcards: PLAN.reference_parameter(
            "lib", wildcards.name, wildcards.seed
        ),
    script:
        "../workflow_scripts/reference_model.py"


rule reference_models:
    input:
        PLAN.reference_outputs(),
