# What answers are worth beside being right: reward models, meaning, and the role judge.


localrules:
    robustness_judging,


rule robustness_rewards:
    input:
        examples="results/robustness/examples.parquet",
        answers="results/robustness/{model}/answers.parquet",
        samples="results/robustness/{model}/samples.parquet",
        files=reward_files(SETTINGS),
    output:
        rewards="results/robustness/{model}/rewards.parquet",
        document="results/robustness/{model}/rewards.json",
    log:
        "logs/robustness_rewards/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    priority: 1  # the longest chain of jobs
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "robustness_rewards", by="model"),
        code=parameter("code", "robustness_rewards", by="model"),
        lib=parameter("lib", "robustness_rewards", by="model"),
    script:
        "../workflow_scripts/robustness_rewards.py"


rule robustness_semantics:
    input:
        answers="results/robustness/{model}/answers.parquet",
        samples="results/robustness/{model}/samples.parquet",
        files=comparison_files(SETTINGS),
    output:
        semantics="results/robustness/{model}/semantics.parquet",
    log:
        "logs/robustness_semantics/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "robustness_semantics", by="model"),
        code=parameter("code", "robustness_semantics", by="model"),
        lib=parameter("lib", "robustness_semantics", by="model"),
    script:
        "../workflow_scripts/robustness_semantics.py"


rule robustness_judging:
    input:
        examples="results/robustness/examples.parquet",
        answers="results/robustness/{model}/answers.parquet",
    output:
        judgements="results/robustness/{model}/judgements.parquet",
    log:
        "logs/robustness_judging/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=1440,
    params:
        spec=parameter("spec", "robustness_judging", by="model"),
        code=parameter("code", "robustness_judging", by="model"),
        lib=parameter("lib", "robustness_judging", by="model"),
    script:
        "../workflow_scripts/robustness_judging.py"
