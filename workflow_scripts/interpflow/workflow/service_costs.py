"""Calls of language models that the configured rounds of writing will make, and their price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.answers import Usage
from interpflow.llm.asks import Ask
from interpflow.llm.bought.prices import Price, PriceTable
from interpflow.llm.bought.store_reading import store_contents, stored_keys
from interpflow.llm.preflight import SERVICES, price_of
from interpflow.llm.providers import open_provider
from interpflow.llm.requests import canonical_body
from interpflow.llm.roles import Player, players, uses
from interpflow.studies.counting.written_asks import membership_ask
from interpflow.studies.counting.written_lists import planned_asks
from interpflow.studies.counting.written_state import written_state
from interpflow.studies.counting.written_validation import gold_questions
from interpflow.studies.robustness.answers.judging import Judged, comparison_ask
from interpflow.studies.robustness.answers.semantics import Comparison
from interpflow.studies.robustness.data.base_items import study_items
from interpflow.studies.robustness.data.cells import planned_cells
from interpflow.studies.robustness.data.rewriting import meaning_ask, rewrite_asks
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates
from interpflow.tasks.counting.setup import factorial_design

CHARACTERS_PER_TOKEN = 4.0  # of prompts and JSON, rather more tokens than there will be
# What a service adds to a prompt for structured output.
HIDDEN_TOKENS = 300
TYPICAL_WORD = "marigold"


@dataclass(frozen=True)
class PlannedCalls:
    """Calls of one player for one purpose. Tokens and USD are upper bounds.

    `is_bound`: the calls are, too, as they depend on the answers before them. `n_stored`: of the
    calls, those whose answers the store holds; null where that cannot be known beforehand.
    """

    role: str
    model: str
    purpose: str
    n_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    is_bound: bool
    n_stored: int | None

    def times(self, n: int, purpose: str) -> PlannedCalls:
        """`n` times as much, for another purpose, as a bound."""
        return replace(
            self, purpose=purpose, n_calls=self.n_calls * n, input_tokens=self.input_tokens * n,
            output_tokens=self.output_tokens * n, cost_usd=self.cost_usd * n, is_bound=True,
            n_stored=None,
        )  # fmt: skip


def planned_calls(config: Config) -> list[PlannedCalls]:
    """Calls of every study that asks language models."""
    return [*_counting_calls(config), *_robustness_calls(config)]


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
        round_one = _planned(config, writer, "lists, round 1", [ask for ask, _, _ in first])
        calls += [round_one]
        if rounds > 1:
            calls.append(round_one.times(rounds - 1, f"lists, rounds 2 to {rounds}"))
    gold = gold_questions(design.categories, lexicon, study.data.llm, config.seed)
    gold_asks = [membership_ask(word, category, lexicon) for category, word in gold]
    n_words = sum(length for _, _, shapes in first for length, _ in shapes)
    for judge in players(config, "validator"):
        measured = _planned(config, judge, "words of known membership", gold_asks)
        example = _planned(
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
        calls += [_planned(config, player, "rewrites of prompts", asks)
                  for player in players(config, "generator")]  # fmt: skip
    n_variants = len(planned_cells(study)) - 1 + max(len(item.given) for item in items)
    longest = max((item.question.text for item in items), key=len)
    if "validator" in roles:
        asks = [meaning_ask((longest, longest))]
        calls += [
            _planned(config, player, "", asks).times(
                n_variants * len(items), "meanings of variants"
            )
            for player in players(config, "validator")
        ]
    if "judge" in roles:
        # An answer of the greatest length, twice; asked in both orders of every model's answers.
        answer = "x" * round(CHARACTERS_PER_TOKEN * study.inference.max_new_tokens)
        shown = Comparison("", "", "", "", "answer", reference=answer, answer=answer)
        asks = [comparison_ask(shown, Judged(longest, None, ""), "clean_first")]
        n_asked = 2 * n_variants * len(items) * len(config.robustness_models())
        calls += [_planned(config, player, "", asks).times(n_asked, "comparisons of answers")
                  for player in players(config, "judge")]  # fmt: skip
    return calls


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


def _planned(config: Config, player: Player, purpose: str, asks: Sequence[Ask]) -> PlannedCalls:
    price = None
    if player.settings.provider in SERVICES:
        price = price_of(player.settings, PriceTable.load(config.llm.prices), player.key)
    usages = [_usage(ask, player) for ask in asks]
    return PlannedCalls(
        role=player.key.removeprefix("llm.roles."),
        model=player.settings.model or player.identity.name,
        purpose=purpose,
        n_calls=len(asks),
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cost_usd=_cost(usages, price, player.settings.batch),
        is_bound=False,
        n_stored=_n_stored(config, player, asks),
    )


def _usage(ask: Ask, player: Player) -> Usage:
    if player.settings.provider == "offline":
        return Usage()
    characters = len(ask.system) + sum(len(str(turn.content)) for turn in ask.turns)
    if ask.schema is not None:
        characters += len(canonical_body(ask.schema))
    tokens = round(characters / CHARACTERS_PER_TOKEN) + HIDDEN_TOKENS
    return Usage(input_tokens=tokens, output_tokens=min(ask.max_tokens, player.settings.max_tokens))


def _cost(usages: Sequence[Usage], price: Price | None, batch: bool) -> float:
    return sum(price.cost(usage, batch) for usage in usages) if price else 0.0


def _n_stored(config: Config, player: Player, asks: Sequence[Ask]) -> int | None:
    """Null without a key: requests are made by the provider, which wants one."""
    if player.settings.provider == "offline":
        return 0
    store = Path(config.llm.store)
    if not store.exists():
        return 0
    try:
        provider = open_provider(player.settings, config.models)
    except UserError:
        return None
    return len(stored_keys(store, {provider.request(ask).key for ask in asks}))
