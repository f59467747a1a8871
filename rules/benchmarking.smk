# Behaviour: scores with floors and intervals, the input gate, and models against each other.


rule counting_benchmark:
    input:
        answers="results/counting/{model}/answers.parquet",
    output:
        estimates="results/counting/{model}/benchmark.parquet",
        confusion="results/counting/{model}/confusion.parquet",
        document="results/counting/{model}/benchmark.json",
    log:
        "logs/counting_benchmark/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        spec=parameter("spec", "counting_benchmark", by="model"),
        code=parameter("code", "counting_benchmark", by="model"),
        lib=parameter("lib", "counting_benchmark", by="model"),
    script:
        "../workflow_scripts/counting_benchmark.py"


rule counting_comparison:
    input:
        answers=a_model("answers.parquet"),
    output:
        estimates="results/counting/comparison.parquet",
    log:
        "logs/counting_comparison.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=20,
    params:
        spec=parameter("spec", "counting_comparison"),
        code=parameter("code", "counting_comparison"),
        lib=parameter("lib", "counting_comparison"),
    script:
        "../workflow_scripts/counting_comparison.py"


rule robustness_benchmark:
    input:
        examples="results/robustness/examples.parquet",
        answers="results/robustness/{model}/answers.parquet",
        samples="results/robustness/{model}/samples.parquet",
        rewards="results/robustness/{model}/rewards.parquet",
        semantics=lambda wildcards: scored(
            wildcards.model, "semantics", compares_answers(SETTINGS)
        ),
        judgements=lambda wildcards: scored(
            wildcards.model, "judgements", judges_answers(SETTINGS)
        ),
    output:
        estimates="results/robustness/{model}/benchmark.parquet",
        document="results/robustness/{model}/benchmark.json",
    log:
        "logs/robustness_benchmark/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    priority: 1  # the longest chain of jobs
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        spec=parameter("spec", "robustness_benchmark", by="model"),
        code=parameter("code", "robustness_benchmark", by="model"),
        lib=parameter("lib", "robustness_benchmark", by="model"),
    script:
        "../workflow_scripts/robustness_benchmark.py"
