# Layers: models run under layer plans, lenses, and minimal sets of blocks.


localrules:
    layer_surgery_free,


rule layer_surgery_writing:
    input:
        files=task_files(SETTINGS),
    output:
        written="results/layer_surgery/written.parquet",
    log:
        "logs/layer_surgery_writing.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        spec=parameter("spec", "layer_surgery_writing"),
        code=parameter("code", "layer_surgery_writing"),
        lib=parameter("lib", "layer_surgery_writing"),
    script:
        "../workflow_scripts/layer_surgery_writing.py"


rule layer_surgery_generation:
    input:
        files=task_files(SETTINGS),
        written=(
            "results/layer_surgery/written.parquet" if writes_items(SETTINGS) else []
        ),
    output:
        task_items="results/layer_surgery/items.parquet",
        texts="results/layer_surgery/texts.parquet",
        document="results/layer_surgery/data.json",
    log:
        "logs/layer_surgery_generation.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        spec=parameter("spec", "layer_surgery_generation"),
        code=parameter("code", "layer_surgery_generation"),
        lib=parameter("lib", "layer_surgery_generation"),
    script:
        "../workflow_scripts/layer_surgery_generation.py"


rule layer_surgery_intact:
    input:
        task_items="results/layer_surgery/items.parquet",
        texts="results/layer_surgery/texts.parquet",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        intact="results/layer_surgery/{model}/intact.parquet",
        gates="results/layer_surgery/{model}/gates.json",
    log:
        "logs/layer_surgery_intact/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
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
        spec=parameter("spec", "layer_surgery_intact", by="model"),
        code=parameter("code", "layer_surgery_intact", by="model"),
        lib=parameter("lib", "layer_surgery_intact", by="model"),
    script:
        "../workflow_scripts/layer_surgery_intact.py"


rule layer_surgery_sweep:
    input:
        task_items="results/layer_surgery/items.parquet",
        texts="results/layer_surgery/texts.parquet",
        intact="results/layer_surgery/{model}/intact.parquet",
        gates="results/layer_surgery/{model}/gates.json",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        plans="results/layer_surgery/{model}/plans.parquet",
        answers="results/layer_surgery/{model}/answers.parquet",
        losses="results/layer_surgery/{model}/losses.parquet",
        generations="results/layer_surgery/{model}/generations.parquet",
        document="results/layer_surgery/{model}/sweep.json",
    log:
        "logs/layer_surgery_sweep/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    priority: 1  # the longest chain of jobs
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=1440,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "layer_surgery_sweep", by="model"),
        code=parameter("code", "layer_surgery_sweep", by="model"),
        lib=parameter("lib", "layer_surgery_sweep", by="model"),
    script:
        "../workflow_scripts/layer_surgery_sweep.py"


rule layer_surgery_lenses:
    input:
        task_items="results/layer_surgery/items.parquet",
        texts="results/layer_surgery/texts.parquet",
        intact="results/layer_surgery/{model}/intact.parquet",
        gates="results/layer_surgery/{model}/gates.json",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        lens="results/layer_surgery/{model}/tuned_lens.safetensors",
        lenses="results/layer_surgery/{model}/lenses.parquet",
        exits="results/layer_surgery/{model}/exits.parquet",
        trajectories="results/layer_surgery/{model}/trajectories.parquet",
        estimates="results/layer_surgery/{model}/lens_estimates.parquet",
        document="results/layer_surgery/{model}/lenses.json",
    log:
        "logs/layer_surgery_lenses/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=240,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "layer_surgery_lenses", by="model"),
        code=parameter("code", "layer_surgery_lenses", by="model"),
        lib=parameter("lib", "layer_surgery_lenses", by="model"),
    script:
        "../workflow_scripts/layer_surgery_lenses.py"


rule layer_surgery_search:
    input:
        task_items="results/layer_surgery/items.parquet",
        texts="results/layer_surgery/texts.parquet",
        intact="results/layer_surgery/{model}/intact.parquet",
        gates="results/layer_surgery/{model}/gates.json",
        manifest="results/models/{model}/manifest.json",
        files=lambda wildcards: model_files(SETTINGS, wildcards.model),
    output:
        sets="results/layer_surgery/{model}/sets.parquet",
        estimates="results/layer_surgery/{model}/set_estimates.parquet",
    log:
        "logs/layer_surgery_search/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb(3000),
        runtime=240,
        tokens_per_batch=SETTINGS.execution.tokens_per_batch,
        gpu=int(ON_GPU),
    params:
        spec=parameter("spec", "layer_surgery_search", by="model"),
        code=parameter("code", "layer_surgery_search", by="model"),
        lib=parameter("lib", "layer_surgery_search", by="model"),
    script:
        "../workflow_scripts/layer_surgery_search.py"


rule layer_surgery_free:
    input:
        task_items="results/layer_surgery/items.parquet",
        data="results/layer_surgery/data.json",
        intact="results/layer_surgery/{model}/intact.parquet",
        gates="results/layer_surgery/{model}/gates.json",
        generations="results/layer_surgery/{model}/generations.parquet",
    output:
        answers="results/layer_surgery/{model}/free_answers.parquet",
        document="results/layer_surgery/{model}/free_answers.json",
    log:
        "logs/layer_surgery_free/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=1440,
    params:
        spec=parameter("spec", "layer_surgery_free", by="model"),
        code=parameter("code", "layer_surgery_free", by="model"),
        lib=parameter("lib", "layer_surgery_free", by="model"),
    script:
        "../workflow_scripts/layer_surgery_free.py"


rule layer_surgery_effects:
    input:
        task_items="results/layer_surgery/items.parquet",
        texts="results/layer_surgery/texts.parquet",
        intact="results/layer_surgery/{model}/intact.parquet",
        plans="results/layer_surgery/{model}/plans.parquet",
        answers="results/layer_surgery/{model}/answers.parquet",
        losses="results/layer_surgery/{model}/losses.parquet",
        generations="results/layer_surgery/{model}/generations.parquet",
        free=free_answers("free_answers.parquet"),
        free_document=free_answers("free_answers.json"),
        exits="results/layer_surgery/{model}/exits.parquet",
        lens_estimates="results/layer_surgery/{model}/lens_estimates.parquet",
        claims=claim_files(),
    output:
        estimates="results/layer_surgery/{model}/effects.parquet",
        document="results/layer_surgery/{model}/effects.json",
    log:
        "logs/layer_surgery_effects/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        spec=parameter("spec", "layer_surgery_effects", by="model"),
        code=parameter("code", "layer_surgery_effects", by="model"),
        lib=parameter("lib", "layer_surgery_effects", by="model"),
    script:
        "../workflow_scripts/layer_surgery_effects.py"


rule layer_surgery_summary:
    input:
        data="results/layer_surgery/data.json",
        manifests=expand(
            "results/models/{model}/manifest.json", model=LAYER_SURGERY_MODELS
        ),
        gates=layer_surgery_files("gates.json"),
        sweeps=layer_surgery_files("sweep.json"),
        lenses=layer_surgery_files("lenses.json"),
        sets=layer_surgery_files("sets.parquet"),
        set_estimates=layer_surgery_files("set_estimates.parquet"),
        effects=layer_surgery_files("effects.json"),
        free=(layer_surgery_files("free_answers.json") if judges_free(SETTINGS) else []),
        agents=layer_surgery_files("agent_report.json") if has_agent(SETTINGS) else [],
        judging=layer_surgery_files("judging.json") if judges_agents(SETTINGS) else [],
    output:
        summary="results/layer_surgery/summary.json",
    log:
        "logs/layer_surgery_summary.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "layer_surgery_summary"),
        code=parameter("code", "layer_surgery_summary"),
        lib=parameter("lib", "layer_surgery_summary"),
    script:
        "../workflow_scripts/layer_surgery_summary.py"
