"""Costs of the layer surgery study, from the config alone."""

from __future__ import annotations

from statistics import fmean

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.settings import Config
from interpflow.plans.families import SweepPlan, sweep_plans
from interpflow.studies.layer_surgery.checks import study_tasks
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS, builtin_items
from interpflow.tasks.nlp.task_files import load_task_files
from interpflow.workflow.costs import Cost, model_shape
from interpflow.workflow.plan import Plan

CHARACTERS_PER_TOKEN = 4.5  # of short English sentences; a model's own tokenizer may differ
WRITTEN_CHARACTERS = 60  # of an item that is yet to be written
SAMPLED_ITEMS = 20  # of each task, to see how long they are
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
    n_items, prompt = _items(study)
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
    rows = len(structured) * (n_items + texts.n_documents) + len(others) * null_documents
    memory = 1500 + 2 * weights_mb
    trained = lenses.steps * lenses.documents_per_step * document
    searched = len(study_tasks(study)) * 2 * study.search.max_plans
    item_tokens = study.tasks.n_items * prompt
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
        tokens = n_models * POLICY_PLANS * (texts.n_documents + texts.n_agent) * document
        costs.append(Cost("layer_surgery_judging", name, n_models, round(tokens), 0.1, memory))
    return costs


def _items(study: LayerSurgerySettings) -> tuple[int, float]:
    """Items of all tasks, and tokens of one with its answer."""
    tasks = BUILTIN_TASKS if study.tasks.builtin is None else study.tasks.builtin
    found = [builtin_items(task, study.tasks.n_items, 0)[:SAMPLED_ITEMS] for task in tasks]
    own = load_task_files(study.tasks.files).items
    lengths = [len(item.prompt + item.answer) for items in (*found, own) for item in items]
    lengths = lengths or [WRITTEN_CHARACTERS]
    per_item = fmean(lengths) / CHARACTERS_PER_TOKEN * (1 + study.tasks.shots)
    return len(study_tasks(study)) * study.tasks.n_items, per_item


def _depths(plans: list[SweepPlan], n_layers: int) -> float:
    """Passes through the whole model that as many blocks would be."""
    return sum(plan.plan.n_blocks for plan in plans) / n_layers
