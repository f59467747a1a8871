"""Calls of language models that the configured rounds of writing will make, and their price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from interpflow.config.settings import Config
from interpflow.llm.bought.store_reading import store_contents
from interpflow.llm.preflight import SERVICES
from interpflow.llm.roles import players, uses
from interpflow.plans.families import generating_plans, sweep_plans
from interpflow.studies.counting.written_asks import membership_ask
from interpflow.studies.counting.written_lists import planned_asks
from interpflow.studies.counting.written_state import written_state
from interpflow.studies.counting.written_validation import gold_questions
from interpflow.studies.layer_surgery.data.judging import answer_ask, item_ask
from interpflow.studies.layer_surgery.data.writing import OVERSAMPLE, round_asks
from interpflow.studies.robustness.answers.judging import Judged, comparison_ask
from interpflow.studies.robustness.answers.semantics import Comparison
from interpflow.studies.robustness.data.base_items import study_items
from interpflow.studies.robustness.data.cells import planned_cells
from interpflow.studies.robustness.data.rewriting import meaning_ask, rewrite_asks
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates
from interpflow.tasks.counting.setup import factorial_design
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.judged_items import asks_free, needs_judge
from interpflow.tasks.nlp.task_files import load_task_files
from interpflow.workflow.costs import model_shape
from interpflow.workflow.planned_calls import CHARACTERS_PER_TOKEN, PlannedCalls, planned

LONGEST_ITEM = 200  # characters of a prompt, and of a task's description
TYPICAL_WORD = "marigold"


def planned_calls(config: Config) -> list[PlannedCalls]:
    """Calls of every study that asks language models."""
    return [*_counting_calls(config), *_robustness_calls(config), *_surgery_calls(config)]


def _counting_calls(config: Config) -> list[PlannedCalls]:
    """Calls for written lists: of the first round as they will be, of later ones at most."""
    study = config.counting
    if study is None or not any(use.study == "counting" for use in uses(config)):
        return []
    lexicon = load_lexicon(Path(study.lexicon) if study.lexicon else None)
    templates = load_templates(Path(study.prompt_templates) if study.prompt_templates else None)
    design = factorial_design(study.data, config.seed, lexicon, templates)
    state = written_state(study.data, design, lexicon, [], [])
    longest = config.llm.roles.generator.max_tokens
    first = planned_asks(state, study.data.llm, 1, lexicon, config.seed, longest=longest)
    rounds = study.data.llm.max_rounds
    calls = []
    for writer in players(config, "generator"):
        round_one = planned(config, writer, "lists, round 1", [ask for ask, _, _ in first])
        calls += [round_one]
        if rounds > 1:
            calls.append(round_one.times(rounds - 1, f"lists, rounds 2 to {rounds}"))
    gold = gold_questions(design.categories, lexicon, study.data.llm, config.seed)
    gold_asks = [membership_ask(word, category, lexicon) for category, word in gold]
    n_words = sum(length for _, _, shapes in first for length, _ in shapes)
    for judge in players(config, "validator"):
        measured = planned(config, judge, "words of known membership", gold_asks)
        example = planned(
            config, judge, "", [membership_ask(TYPICAL_WORD, design.categories[0], lexicon)]
        )
        calls += [measured] if gold_asks else []
        calls.append(example.times(n_words * rounds, "words that the lexicon lacks"))
    return calls


def _robustness_calls(config: Config) -> list[PlannedCalls]:
    """Rewrites as they will be asked for; of meanings and comparisons at most one a text."""
    study = config.robustness
    roles = {role for use in uses(config) if use.study == "robustness" for role in use.roles}
    if study is None or not roles:
        return []
    calls = []
    items = study_items(study.data, config.seed).items
    if "generator" in roles:
        asks = [ask for ask, _ in rewrite_asks(study, items, config.seed)]
        calls += [planned(config, player, "rewrites of prompts", asks)
                  for player in players(config, "generator")]  # fmt: skip
    n_variants = len(planned_cells(study)) - 1 + max(len(item.given) for item in items)
    longest = max((item.question.text for item in items), key=len)
    if "validator" in roles:
        asks = [meaning_ask((longest, longest))]
        calls += [
            planned(config, player, "", asks).times(n_variants * len(items), "meanings of variants")
            for player in players(config, "validator")
        ]
    if "judge" in roles:
        # An answer of the greatest length, twice; asked in both orders of every model's answers.
        answer = "x" * round(CHARACTERS_PER_TOKEN * study.inference.max_new_tokens)
        shown = Comparison("", "", "", "", "answer", reference=answer, answer=answer)
        asks = [comparison_ask(shown, Judged(longest, None, ""), "clean_first")]
        n_asked = 2 * n_variants * len(items) * len(config.robustness_models())
        calls += [planned(config, player, "", asks).times(n_asked, "comparisons of answers")
                  for player in players(config, "judge")]  # fmt: skip
    return calls


def _surgery_calls(config: Config) -> list[PlannedCalls]:
    """Written items, of the first round as they will be; and the agent's turns at most."""
    study = config.layer_surgery
    if study is None:
        return []
    calls = []
    written = study.tasks.written
    if written is not None:
        for writer in players(config, "generator"):
            missing = dict.fromkeys(written.tasks, written.n_items)
            asks = [ask for ask, _ in round_asks(written, [], missing, 1, config.seed)]
            first = planned(config, writer, "items, round 1", asks)
            calls.append(first)
            if written.rounds > 1:
                calls.append(
                    first.times(written.rounds - 1, f"items, rounds 2 to {written.rounds}")
                )
        longest = TaskItem(task="", prompt="x" * LONGEST_ITEM, answer=" x")
        n_items = round(OVERSAMPLE * written.n_items) * len(written.tasks) * written.rounds
        for judge in players(config, "judge"):
            one = planned(config, judge, "", [item_ask(0, longest, "x" * LONGEST_ITEM)])
            calls.append(one.times(n_items, "verdicts on items"))
    calls += _free_calls(config)
    agent = study.agent
    for player in players(config, "agent") if agent else ():
        if agent is None or player.settings.provider == "offline":
            continue
        n_models = len(config.layer_surgery_models())
        budget = agent.budget
        one = planned(config, player, "", [])
        run = replace(
            one, n_calls=budget.turns, input_tokens=budget.llm_tokens,
            output_tokens=min(budget.llm_tokens, budget.turns * player.settings.max_tokens),
            cost_usd=budget.cost_usd if player.settings.provider in SERVICES else 0.0,
        )  # fmt: skip
        calls.append(run.times(n_models, "experiments of the agent"))
        judging = study.judging
        if judging.plants and judging.with_agent:
            n_runs = (1 + len(judging.plants) * judging.places) * judging.seeds * n_models
            calls.append(run.times(n_runs, "the agent on planted models"))
    return calls


def _free_calls(config: Config) -> list[PlannedCalls]:
    """Free answers, at most: those of the gate, and those generated under plans of each model."""
    study = config.layer_surgery
    if study is None or not asks_free(study.tasks):
        return []
    loaded = load_task_files(study.tasks.files)
    judged = [item for item in loaded.items if needs_judge(item, loaded.questions)]
    n_tasks, n_free = len({item.task for item in judged}), sum(x.scorer == "free" for x in judged)
    n_answers = 0
    for name in config.layer_surgery_models():
        shape = model_shape(config, name)
        plans = sweep_plans(
            study.plans.model_copy(update={"random_orders": 0, "controls": 0}), shape.layers,
            shape.heads, config.seed,
        )  # fmt: skip
        n_plans = len(generating_plans(plans, study.measures.generate))
        n_answers += n_free + n_plans * n_tasks * study.measures.n_generated
    longest = max(judged, key=lambda item: len(item.prompt))
    answer = "x" * round(CHARACTERS_PER_TOKEN * study.measures.max_new_tokens)
    questions = loaded.questions.get(longest.task, ())
    ask = answer_ask(0, replace(longest, scorer="free"), answer, questions)
    return [
        planned(config, judge, "", [ask]).times(n_answers, "free answers")
        for judge in players(config, "judge")
    ]


def print_calls(config: Config) -> None:
    """Print the planned calls and what the store holds; nothing where no model is asked."""
    calls = planned_calls(config)
    if not calls:
        print("0 calls to language-model services, cost 0")
        return
    print(f"\n{'role':<12}{'model':<26}{'for':<30}{'calls':>10}{'stored':>9}"
          f"{'input tokens':>14}{'output tokens':>15}{'USD':>10}")  # fmt: skip
    for each in calls:
        n_calls = ("≤ " if each.is_bound else "") + f"{each.n_calls:,}"
        stored = "?" if each.n_stored is None else f"{each.n_stored:,}"
        print(
            f"{each.role:<12}{each.model[:25]:<26}{each.purpose:<30}{n_calls:>10}{stored:>9}"
            f"{each.input_tokens:>14,}{each.output_tokens:>15,}{each.cost_usd:>10.2f}"
        )
    bought = [each for each in calls if each.cost_usd]
    first = [each for each in bought if not each.is_bound]
    cap = config.llm.max_cost_usd
    there = store_contents(Path(config.llm.store))
    print(
        f"paid: at most {sum(each.n_calls for each in bought):,} calls for "
        f"{sum(each.cost_usd for each in bought):.2f} USD, in the first round "
        f"{sum(each.n_calls for each in first):,} for {sum(each.cost_usd for each in first):.2f} "
        f"USD; cap: {'none' if cap is None else f'{cap:.2f} USD'}"
    )
    print(
        f"store {config.llm.store}: {there.n_answers:,} answers, {there.spent_usd:.2f} USD spent, "
        f"{there.held_usd:.2f} USD held for calls without an answer"
    )
