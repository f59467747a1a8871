# Mechanism: patches behind gates, their statistics, the running count, and the study's summary.


rule counting_mediation:
    input:
        pairs="results/counting/pairs.parquet",
        validation="results/counting/validation.json",
        benchmark="results/counting/{model}/benchmark.json",
        manifest="results/models/{model}/manifest.json",
        lexicon=lexicon_files(SETTINGS),
        templates=templates_file(SETTINGS),
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        pairs="results/counting/{model}/pairs.parquet",
        effects="results/counting/{model}/pair_effects.parquet",
        gates="results/counting/{model}/gates.json",
    log:
        "logs/counting_mediation/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=240,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "counting_mediation", by="model"),
        code=parameter("code", "counting_mediation", by="model"),
        lib=parameter("lib", "counting_mediation", by="model"),
    script:
        "../workflow_scripts/counting_mediation.py"


rule counting_effects:
    input:
        effects="results/counting/{model}/pair_effects.parquet",
        gates="results/counting/{model}/gates.json",
    output:
        map="results/counting/{model}/mediation.parquet",
        estimates="results/counting/{model}/effects.parquet",
    log:
        "logs/counting_effects/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=parameter("spec", "counting_effects", by="model"),
        code=parameter("code", "counting_effects", by="model"),
        lib=parameter("lib", "counting_effects", by="model"),
    script:
        "../workflow_scripts/counting_effects.py"


rule counting_running_count:
    input:
        effects="results/counting/{model}/pair_effects.parquet",
        gates="results/counting/{model}/gates.json",
        activations="results/counting/{model}/activations",
        examples="results/counting/examples.parquet",
    output:
        slopes="results/counting/{model}/running_count.parquet",
        probes="results/counting/{model}/probes.parquet",
        verdict="results/counting/{model}/verdict.json",
    log:
        "logs/counting_running_count/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=parameter("spec", "counting_running_count", by="model"),
        code=parameter("code", "counting_running_count", by="model"),
        lib=parameter("lib", "counting_running_count", by="model"),
    script:
        "../workflow_scripts/counting_running_count.py"


rule counting_summary:
    input:
        validation="results/counting/validation.json",
        written=(
            "results/counting/written_quality.json" if written_rounds(SETTINGS) else []
        ),
        comparison="results/counting/comparison.parquet",
        manifests=expand("results/models/{model}/manifest.json", model=COUNTING_MODELS),
        benchmarks=a_model("benchmark.json"),
        estimates=a_model("benchmark.parquet"),
        gates=a_model("gates.json"),
        effects=a_model("effects.parquet"),
        verdicts=a_model("verdict.json"),
    output:
        summary="results/counting/summary.json",
    log:
        "logs/counting_summary.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "counting_summary"),
        code=parameter("code", "counting_summary"),
        lib=parameter("lib", "counting_summary"),
    script:
        "../workflow_scripts/counting_summary.py"


rule robustness_internals:
    input:
        examples="results/robustness/examples.parquet",
        answers="results/robustness/{model}/answers.parquet",
        activations="results/robustness/{model}/activations",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        shifts="results/robustness/{model}/shifts.parquet",
        attention="results/robustness/{model}/attention.parquet",
        neurons="results/robustness/{model}/neurons.parquet",
        map="results/robustness/{model}/internals_map.parquet",
        estimates="results/robustness/{model}/internals.parquet",
        probes="results/robustness/{model}/probes.parquet",
    log:
        "logs/robustness_internals/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=120,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "robustness_internals", by="model"),
        code=parameter("code", "robustness_internals", by="model"),
        lib=parameter("lib", "robustness_internals", by="model"),
    script:
        "../workflow_scripts/robustness_internals.py"


rule robustness_mediation:
    input:
        examples="results/robustness/examples.parquet",
        answers="results/robustness/{model}/answers.parquet",
        benchmark="results/robustness/{model}/benchmark.json",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        pairs="results/robustness/{model}/pairs.parquet",
        effects="results/robustness/{model}/pair_effects.parquet",
        tokens="results/robustness/{model}/token_effects.parquet",
        gates="results/robustness/{model}/gates.json",
    log:
        "logs/robustness_mediation/{model}.log",
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
        spec=parameter("spec", "robustness_mediation", by="model"),
        code=parameter("code", "robustness_mediation", by="model"),
        lib=parameter("lib", "robustness_mediation", by="model"),
    script:
        "../workflow_scripts/robustness_mediation.py"


rule robustness_effects:
    input:
        effects="results/robustness/{model}/pair_effects.parquet",
        gates="results/robustness/{model}/gates.json",
    output:
        map="results/robustness/{model}/mediation.parquet",
        estimates="results/robustness/{model}/effects.parquet",
        document="results/robustness/{model}/effects.json",
    log:
        "logs/robustness_effects/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=parameter("spec", "robustness_effects", by="model"),
        code=parameter("code", "robustness_effects", by="model"),
        lib=parameter("lib", "robustness_effects", by="model"),
    script:
        "../workflow_scripts/robustness_effects.py"


rule robustness_summary:
    input:
        validation="results/robustness/validation.json",
        manifests=expand(
            "results/models/{model}/manifest.json", model=ROBUSTNESS_MODELS
        ),
        benchmarks=robustness_files("benchmark.json"),
        estimates=robustness_files("benchmark.parquet"),
        rewards=robustness_files("rewards.json"),
        internals=robustness_files("internals.parquet"),
        gates=robustness_files("gates.json"),
        effects=robustness_files("effects.json"),
    output:
        summary="results/robustness/summary.json",
    log:
        "logs/robustness_summary.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "robustness_summary"),
        code=parameter("code", "robustness_summary"),
        lib=parameter("lib", "robustness_summary"),
    script:
        "../workflow_scripts/robustness_summary.py"
