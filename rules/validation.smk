# Checks of the data, by rules of their own. Nothing runs on data that failed a gate.


rule counting_validation:
    input:
        examples="results/counting/examples.parquet",
        pairs="results/counting/pairs.parquet",
        words=round_files(SETTINGS, "words.parquet"),
        lexicon=lexicon_files(SETTINGS),
    output:
        table="results/counting/validation.parquet",
        document="results/counting/validation.json",
    log:
        "logs/counting_validation.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=20,
    params:
        spec=parameter("spec", "counting_validation"),
        code=parameter("code", "counting_validation"),
        lib=parameter("lib", "counting_validation"),
    script:
        "../workflow_scripts/counting_validation.py"


rule robustness_validation:
    input:
        examples="results/robustness/examples.parquet",
        not_made="results/robustness/not_made.parquet",
        meanings=(
            "results/robustness/meanings.parquet" if asks_meanings(SETTINGS) else []
        ),
        files=preservation_files(SETTINGS),
    output:
        table="results/robustness/validation.parquet",
        document="results/robustness/validation.json",
    log:
        "logs/robustness_validation.log",
    priority: 1  # the longest chain of jobs
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        spec=parameter("spec", "robustness_validation"),
        code=parameter("code", "robustness_validation"),
        lib=parameter("lib", "robustness_validation"),
    script:
        "../workflow_scripts/robustness_validation.py"
