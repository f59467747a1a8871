# Data of the studies.


rule counting_generation:
    input:
        lexicon=lexicon_files(SETTINGS),
        templates=templates_file(SETTINGS),
    output:
        examples="results/counting/examples.parquet",
        pairs="results/counting/pairs.parquet",
    log:
        "logs/counting_generation.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "counting_generation"),
        code=parameter("code", "counting_generation"),
        lib=parameter("lib", "counting_generation"),
    script:
        "../workflow_scripts/counting_generation.py"
