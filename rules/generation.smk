# Data of the studies. Lists that language models write come in rounds: write, judge, write what is
# missing; rounds after the last missing list ask nothing. Rules that call a service run where
# Snakemake was started: they need the network, and share one store of answers on one disk.


localrules:
    counting_writing,
    counting_judging,
    robustness_rewriting,
    robustness_meanings,


rule counting_writing:
    input:
        lists=lambda wildcards: round_files(
            SETTINGS, "lists.parquet", before=int(wildcards.round)
        ),
        verdicts=lambda wildcards: round_files(
            SETTINGS, "verdicts.parquet", before=int(wildcards.round)
        ),
        lexicon=lexicon_files(SETTINGS),
        templates=templates_file(SETTINGS),
    output:
        lists="results/counting/rounds/{round}/lists.parquet",
    log:
        "logs/counting_writing_{round}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=1440,
    params:
        spec=parameter("spec", "counting_writing", "round"),
        code=parameter("code", "counting_writing", "round"),
        lib=parameter("lib", "counting_writing", "round"),
    script:
        "../workflow_scripts/counting_writing.py"


rule counting_judging:
    input:
        lists="results/counting/rounds/{round}/lists.parquet",
        earlier_lists=lambda wildcards: round_files(
            SETTINGS, "lists.parquet", before=int(wildcards.round)
        ),
        earlier_verdicts=lambda wildcards: round_files(
            SETTINGS, "verdicts.parquet", before=int(wildcards.round)
        ),
        lexicon=lexicon_files(SETTINGS),
        templates=templates_file(SETTINGS),
    output:
        words="results/counting/rounds/{round}/words.parquet",
        verdicts="results/counting/rounds/{round}/verdicts.parquet",
    log:
        "logs/counting_judging_{round}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=1440,
    params:
        spec=parameter("spec", "counting_judging", "round"),
        code=parameter("code", "counting_judging", "round"),
        lib=parameter("lib", "counting_judging", "round"),
    script:
        "../workflow_scripts/counting_judging.py"


rule counting_written_quality:
    input:
        lists=round_files(SETTINGS, "lists.parquet"),
        words=round_files(SETTINGS, "words.parquet"),
        verdicts=round_files(SETTINGS, "verdicts.parquet"),
    output:
        document="results/counting/written_quality.json",
        disagreements="results/counting/disagreements.parquet",
    log:
        "logs/counting_written_quality.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "counting_written_quality"),
        code=parameter("code", "counting_written_quality"),
        lib=parameter("lib", "counting_written_quality"),
    script:
        "../workflow_scripts/counting_written_quality.py"


rule counting_generation:
    input:
        lists=round_files(SETTINGS, "lists.parquet"),
        words=round_files(SETTINGS, "words.parquet"),
        verdicts=round_files(SETTINGS, "verdicts.parquet"),
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


rule robustness_rewriting:
    input:
        files=item_files(SETTINGS),
    output:
        rewrites="results/robustness/rewrites.parquet",
    log:
        "logs/robustness_rewriting.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=1440,
    params:
        spec=parameter("spec", "robustness_rewriting"),
        code=parameter("code", "robustness_rewriting"),
        lib=parameter("lib", "robustness_rewriting"),
    script:
        "../workflow_scripts/robustness_rewriting.py"


rule robustness_generation:
    input:
        files=item_files(SETTINGS),
        rewrites=(
            "results/robustness/rewrites.parquet" if asks_rewrites(SETTINGS) else []
        ),
    output:
        examples="results/robustness/examples.parquet",
        not_made="results/robustness/not_made.parquet",
    log:
        "logs/robustness_generation.log",
    priority: 1  # the longest chain of jobs
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        spec=parameter("spec", "robustness_generation"),
        code=parameter("code", "robustness_generation"),
        lib=parameter("lib", "robustness_generation"),
    script:
        "../workflow_scripts/robustness_generation.py"


rule robustness_meanings:
    input:
        examples="results/robustness/examples.parquet",
        files=preservation_files(SETTINGS),
    output:
        meanings="results/robustness/meanings.parquet",
    log:
        "logs/robustness_meanings.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        spec=parameter("spec", "robustness_meanings"),
        code=parameter("code", "robustness_meanings"),
        lib=parameter("lib", "robustness_meanings"),
    script:
        "../workflow_scripts/robustness_meanings.py"
