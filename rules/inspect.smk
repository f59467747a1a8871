# Targets that make no artifact: what a run will cost, why something would run
# again, and the cleaning up of a killed run.


rule estimate:
    log:
        "logs/estimate.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        spec=inspection_parameter("spec", "estimate.py"),
        code=inspection_parameter("code", "estimate.py"),
        lib=inspection_parameter("lib", "estimate.py"),
    script:
        "../workflow_scripts/estimate.py"


rule why:
    log:
        "logs/why.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        spec=inspection_parameter("spec", "why.py"),
        code=inspection_parameter("code", "why.py"),
        lib=inspection_parameter("lib", "why.py"),
    script:
        "../workflow_scripts/why.py"


rule clean_tmp:
    log:
        "logs/clean_tmp.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        spec=inspection_parameter("spec", "clean_tmp.py"),
        code=inspection_parameter("code", "clean_tmp.py"),
        lib=inspection_parameter("lib", "clean_tmp.py"),
    script:
        "../workflow_scripts/clean_tmp.py"
