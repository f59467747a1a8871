"""Costs of the layer surgery study, from the config alone."""

from __future__ import annotations

from statistics import fmean

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.settings import Config
from interpflow.plans.families import SweepPlan, generating_plans, sweep_plans
from interpflow.studies.layer_surgery.checks import study_tasks
from interpflow.studies.layer_surgery.data.task_items import study_items
from interpflow.workflow.costs import Cost, model_shape
from interpflow.workflow.plan import Plan

CHARACTERS_PER_TOKEN = 3.0  # of short sentences, sums and code; fewer where each sign is a token
WRITTEN_CHARACTERS = 60  # of an item that is yet to be written
# Bytes on disk of a row of an item or document under a plan, in the store and merged, as measured.
ROW_BYTES = 60
RUN_BYTES = 6000  # of a run's spec, environment and table
# A lens is trained on all depths at once: forward, and twice as much backward, over read-outs only.
TRAINING_PASSES = 3
POLICY_PLANS = 40  # plans that a policy looks at on one model


def layer_surgery_costs(config: Config) -> list[Cost]:
    """Costs of every stage that computes something; none where the study is switched off.

    Plans that begin alike are run together up to where they part, which makes the run cheaper.
    """
    study = config.layer_surgery
    if study is None:
        return []
    n_items, prompt = _items(study, config.seed)
    texts = study.texts
    n_texts = texts.n_documents + texts.n_lens + texts.n_agent
    costs = [Cost("layer_surgery_generation", "", n_items + n_texts, 0,
                  (n_items + n_texts) * 1e-4, 500)]  # fmt: skip
    plan = Plan(config)
    for name in config.layer_surgery_models():
        costs += _model_costs(config, study, name, n_items, prompt, plan.weights_mb(name))
    return costs


def _model_costs(
    config: Config,
    study: LayerSurgerySettings,
    name: str,
    n_items: int,
    prompt: float,
    weights_mb: int,
) -> list[Cost]:
    shape = model_shape(config, name)
    texts, lenses = study.texts, study.lenses
    document = float(texts.max_tokens)
    plans = sweep_plans(study.plans, shape.layers, shape.heads, config.seed)
    structured = [plan for plan in plans if plan.role == "structured"]
    others = [plan for plan in plans if plan.role != "structured"]
    read = _depths(structured, shape.layers) * (n_items * prompt + texts.n_documents * document)
    null_documents = min(study.plans.null_documents, texts.n_documents)
    read += _depths(others, shape.layers) * null_documents * document
    # A token that is generated under a plan is a pass of its own, beside those of its prompt.
    chosen = generating_plans(structured, study.measures.generate)
    n_prompts = study.measures.n_generated * len(study_tasks(study))
    read += _depths(chosen, shape.layers) * n_prompts * (prompt + study.measures.max_new_tokens)
    rows = len(structured) * (n_items + texts.n_documents) + len(others) * null_documents
    memory = 1500 + 2 * weights_mb
    trained = lenses.steps * lenses.documents_per_step * document
    searched = len(study_tasks(study)) * 2 * study.search.max_plans
    item_tokens = n_items / len(study_tasks(study)) * prompt
    costs = [
        Cost("layer_surgery_intact", name, n_items, round(n_items * prompt), 0.1, memory),
        Cost("layer_surgery_sweep", name, len(plans), round(read),
             (rows * ROW_BYTES + len(plans) * RUN_BYTES) / 1e6, memory),
        Cost("layer_surgery_lenses", name, texts.n_lens,
             round(trained + (texts.n_documents + texts.n_lens) * document + n_items * prompt),
             shape.layers * shape.width**2 * 4 / 1e6, memory),
        Cost("layer_surgery_search", name, searched, round(searched * item_tokens),
             searched * RUN_BYTES / 1e6, memory),
    ]  # fmt: skip
    agent = study.agent
    if agent is None:
        return costs
    tested = 2 * agent.budget.confirmatory * agent.n_units * document
    costs.append(Cost("layer_surgery_agent", name, agent.budget.confirmatory,
                      round(min(agent.budget.forward_tokens, 2 * tested)),
                      agent.budget.turns * RUN_BYTES / 1e6, memory))  # fmt: skip
    judging = study.judging
    if judging.plants:
        n_models = 1 + len(judging.plants) * judging.places
        # Documents that are explored are run once for all runs; each test reads some of its own.
        tests = len(judging.policies) * judging.seeds * agent.budget.confirmatory
        documents = POLICY_PLANS * judging.n_explored + tests * judging.n_units
        tokens = n_models * documents * judging.max_tokens
        costs.append(Cost("layer_surgery_judging", name, n_models, round(tokens), 0.1, memory))
    return costs


def _items(study: LayerSurgerySettings, seed: int) -> tuple[int, float]:
    """Items of all tasks, every wording of each family, and tokens of one with its answer."""
    tasks, written = study.tasks, study.tasks.written
    n_written = len(written.tasks) * written.n_items if written else 0
    is_drawn = tasks.builtin != [] or tasks.files
    items = study_items(tasks, seed, None).items if is_drawn else ()
    lengths = [len(item.prompt + item.answer) for item in items]
    lengths += [WRITTEN_CHARACTERS * (1 + tasks.shots)] * n_written
    return len(lengths), fmean(lengths) / CHARACTERS_PER_TOKEN


def _depths(plans: list[SweepPlan], n_layers: int) -> float:
    """Passes through the whole model that as many blocks would be."""
    return sum(plan.plan.n_blocks for plan in plans) / n_layers
