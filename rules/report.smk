# Figures and the report page.


rule counting_figures:
    input:
        examples="results/counting/examples.parquet",
        answers="results/counting/{model}/answers.parquet",
        benchmark="results/counting/{model}/benchmark.parquet",
        confusion="results/counting/{model}/confusion.parquet",
        map="results/counting/{model}/mediation.parquet",
        slopes="results/counting/{model}/running_count.parquet",
        probes="results/counting/{model}/probes.parquet",
        verdict="results/counting/{model}/verdict.json",
        gates="results/counting/{model}/gates.json",
    output:
        **{
            figure: report(
                f"results/counting/{{model}}/figures/{figure}.svg",
                category="Counting",
                subcategory="{model}",
                labels={"figure": figure.replace("_", " ")},
                caption=f"../docs/captions/{figure}.rst",
            )
            for figure in COUNTING_FIGURES
        },
    log:
        "logs/counting_figures/{model}.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=20,
    params:
        spec=parameter("spec", "counting_figures", by="model"),
        code=parameter("code", "counting_figures", by="model"),
        lib=parameter("lib", "counting_figures", by="model"),
    script:
        "../workflow_scripts/counting_figures.py"


rule robustness_figures:
    input:
        answers="results/robustness/{model}/answers.parquet",
        benchmark="results/robustness/{model}/benchmark.parquet",
        map="results/robustness/{model}/internals_map.parquet",
        mediation="results/robustness/{model}/mediation.parquet",
        tokens="results/robustness/{model}/token_effects.parquet",
        gates="results/robustness/{model}/gates.json",
    output:
        **{
            figure: report(
                f"results/robustness/{{model}}/figures/{figure}.svg",
                category="Robustness",
                subcategory="{model}",
                labels={"figure": figure.replace("_", " ")},
                caption=f"../docs/captions/{figure}.rst",
            )
            for figure in ROBUSTNESS_FIGURES
        },
    log:
        "logs/robustness_figures/{model}.log",
    wildcard_constraints:
        model=one_of(ROBUSTNESS_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=20,
    params:
        spec=parameter("spec", "robustness_figures", by="model"),
        code=parameter("code", "robustness_figures", by="model"),
        lib=parameter("lib", "robustness_figures", by="model"),
    script:
        "../workflow_scripts/robustness_figures.py"


rule layer_surgery_figures:
    input:
        plans="results/layer_surgery/{model}/plans.parquet",
        losses="results/layer_surgery/{model}/losses.parquet",
        effects="results/layer_surgery/{model}/effects.parquet",
        lenses="results/layer_surgery/{model}/lenses.parquet",
        exits="results/layer_surgery/{model}/exits.parquet",
        trajectories="results/layer_surgery/{model}/trajectories.parquet",
        sets="results/layer_surgery/{model}/sets.parquet",
        set_estimates="results/layer_surgery/{model}/set_estimates.parquet",
        tests=(
            "results/layer_surgery/{model}/agent_tests.parquet"
            if has_agent(SETTINGS)
            else []
        ),
        judging=(
            "results/layer_surgery/{model}/judging.parquet"
            if judges_agents(SETTINGS)
            else []
        ),
    output:
        **{
            figure: report(
                f"results/layer_surgery/{{model}}/figures/{figure}.svg",
                category="Layer surgery",
                subcategory="{model}",
                labels={"figure": figure.replace("_", " ")},
                caption=f"../docs/captions/{figure}.rst",
            )
            for figure in layer_surgery_figures(SETTINGS)
        },
    log:
        "logs/layer_surgery_figures/{model}.log",
    wildcard_constraints:
        model=one_of(LAYER_SURGERY_MODELS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=20,
    params:
        spec=parameter("spec", "layer_surgery_figures", by="model"),
        code=parameter("code", "layer_surgery_figures", by="model"),
        lib=parameter("lib", "layer_surgery_figures", by="model"),
    script:
        "../workflow_scripts/layer_surgery_figures.py"


rule report_page:
    input:
        summary="results/counting/summary.json" if COUNTING_MODELS else [],
        figures=a_model(*[f"figures/{figure}.svg" for figure in COUNTING_FIGURES]),
        robustness="results/robustness/summary.json" if ROBUSTNESS_MODELS else [],
        robustness_figures=robustness_files(
            *[f"figures/{figure}.svg" for figure in ROBUSTNESS_FIGURES]
        ),
        layer_surgery=(
            "results/layer_surgery/summary.json" if LAYER_SURGERY_MODELS else []
        ),
        layer_surgery_figures=layer_surgery_files(
            *[f"figures/{figure}.svg" for figure in layer_surgery_figures(SETTINGS)]
        ),
        templates=report_templates(),
    output:
        page="results/report/index.html",
    log:
        "logs/report_page.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=parameter("spec", "report_page"),
        code=parameter("code", "report_page"),
        lib=parameter("lib", "report_page"),
    script:
        "../workflow_scripts/report.py"
