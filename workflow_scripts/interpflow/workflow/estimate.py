"""What a run will cost, from the config alone: examples, tokens, memory, disk, calls."""

from __future__ import annotations

from pathlib import Path

from interpflow.config.settings import Config
from interpflow.studies.robustness.checks import NO_GOLD, has_gold
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates, render
from interpflow.tasks.counting.setup import factorial_design
from interpflow.workflow.costs import Cost, model_shape
from interpflow.workflow.layer_surgery_costs import layer_surgery_costs
from interpflow.workflow.plan import Plan
from interpflow.workflow.robustness_costs import robustness_costs
from interpflow.workflow.service_costs import print_calls

CHARACTERS_PER_TOKEN = 4.5  # of English text and word lists; a model's own tokenizer may differ
# Places of a minimal pair that are patched: words after the swap, tail of the prompt, groups.
PLACES_PER_SITE = 12
SWEEPS_MINIMAL, SWEEPS_PREFIX, WINDOWS = 4, 6, 5  # directions × donors; windows of a prefix pair
BYTES_PER_ROW = 90  # of pair_effects.parquet, measured on the default run


def estimate_costs(config: Config) -> list[Cost]:
    """Costs of every stage that computes something."""
    return [*_counting_costs(config), *robustness_costs(config), *layer_surgery_costs(config)]


def _counting_costs(config: Config) -> list[Cost]:
    study = config.counting
    if study is None:
        return []
    lexicon = load_lexicon(Path(study.lexicon) if study.lexicon else None)
    templates = load_templates(Path(study.prompt_templates) if study.prompt_templates else None)
    design = factorial_design(study.data, config.seed, lexicon, templates)
    cells = design.cells() * design.replicates
    per_list = len(design.template_ids) if design.crossed_templates else 1
    n_prompts = len(cells) * per_list
    overhead = sum(
        len(render(template, lexicon, design.categories[0], ()).text) for template in templates
    ) / len(templates)
    word_length = sum(map(len, lexicon.words)) / max(len(lexicon.words), 1) + 2
    characters = sum(overhead + length * word_length for _, length, _ in cells) * per_list
    prompt_tokens = round(characters / CHARACTERS_PER_TOKEN)
    mean_tokens = prompt_tokens / max(n_prompts, 1)
    costs = [Cost("counting_generation", "", n_prompts, 0, n_prompts * 2e-4, 300)]
    plan = Plan(config)
    for name in config.counting_models():
        weights = plan.weights_mb(name)
        greedy = n_prompts * study.benchmark.max_new_tokens
        costs.append(
            Cost("counting_inference", name, n_prompts, 2 * prompt_tokens + greedy,
                 n_prompts * 1e-3, 1500 + 2 * weights)
        )  # fmt: skip
        shape = model_shape(config, name)
        layers, heads = shape.layers, shape.heads
        parts = sum(component != "resid_post" for component in study.mediation.components)
        sites = (layers + 1) * PLACES_PER_SITE + parts * layers * 3
        sites += layers * heads if study.mediation.heads else 0
        minimal = study.pairs.n_minimal * sites * SWEEPS_MINIMAL
        prefix = study.pairs.n_prefix * (layers + 1) * WINDOWS * SWEEPS_PREFIX
        rows = minimal + prefix
        # A patch at layer l leaves the blocks before it alone: half of the work on average.
        tokens = round(rows * mean_tokens / 2)
        costs.append(
            Cost("counting_mediation", name, study.pairs.n_minimal + study.pairs.n_prefix, tokens,
                 rows * BYTES_PER_ROW / 1e6, 2000 + 2 * weights)
        )  # fmt: skip
    return costs


def print_estimate(config: Config) -> None:
    """Print the tables of costs: what is computed, and what is asked of language models."""
    costs = estimate_costs(config)
    print(f"{'rule':<26}{'model':<20}{'examples':>10}{'forward tokens':>16}"
          f"{'disk MB':>10}{'memory MB':>11}")  # fmt: skip
    for cost in costs:
        print(f"{cost.rule:<26}{cost.model:<20}{cost.examples:>10,}{cost.forward_tokens:>16,}"
              f"{cost.disk_mb:>10.1f}{cost.memory_mb:>11,}")  # fmt: skip
    if has_gold(config) is False:
        print(f"note: {NO_GOLD}")
    tokens = sum(cost.forward_tokens for cost in costs)
    disk = sum(cost.disk_mb for cost in costs)
    print(f"in all: {tokens:,} forward tokens (upper bound), {disk:.1f} MB on disk")
    print_calls(config)
