"""Costs of the robustness study, from the config and the prompts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from interpflow.config.robustness import RobustnessSettings
from interpflow.config.settings import Config
from interpflow.models.shape import ModelShape
from interpflow.studies.robustness.data.base_items import frame, study_items
from interpflow.studies.robustness.data.cells import planned_cells
from interpflow.studies.robustness.data.generation import Design, item_rows
from interpflow.tasks.perturbations.operators import NULL
from interpflow.workflow.costs import Cost, model_shape
from interpflow.workflow.plan import Plan, model_files

SAMPLED_ITEMS = 30  # whose variants are made, to see how long they are
CHARACTERS_PER_TOKEN = 3.5  # with typos; where the model's own tokenizer is not here
SENTENCE_CHARACTERS = 3.6  # of a sentence embedding
STORED_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
# Of answers with a known gold answer, those that are another, and so are written and compared.
OTHER_ANSWERS = 0.5
# Distinct pairs that a reward model reads per answer: most variants of a prompt are answered alike,
# and with the clean question they are then one pair.
REWARD_PAIRS = 1.3
# Sweeps of pairs: clean into perturbed and back, real and random donors; and the places that are
# patched of the residual stream, and of its parts and heads. Written out, as the stages that know
# them load torch.
SWEEPS = 4
RESIDUAL_PLACES, PART_PLACES = 7, 3
NUMBER_QUERIES = 8  # numbers of a prompt whose attention is kept, at most
PATTERN_BYTES = 4  # attention is float32, whatever the states are kept in
# Of a prompt's tokens those that `positions: roles` keeps, measured on the built-in problems.
ROLES_SHARE = 0.55
# Bytes on disk of a text, a variant whose states are compared and a cell of a pair, as measured.
TEXT_BYTES, ANSWER_BYTES, REWARD_BYTES, MEANING_BYTES = 80, 45, 12, 14
SHIFT_BYTES, ATTENTION_BYTES, CELL_BYTES = 110, 47, 15
# Of the numbers whose attention is kept, those that stand behind the edited words and see them.
QUERIES_SEEN = 0.5


@dataclass(frozen=True)
class _Texts:
    """The texts of the study: how many, and those of some items. `numbers`: most of a prompt."""

    items: int
    per_item: float
    compared: float
    sample: tuple[str, ...]
    characters: float
    gold_characters: float
    has_gold: bool
    numbers: int

    @property
    def n(self) -> int:
        return round(self.items * self.per_item)


def robustness_costs(config: Config) -> list[Cost]:
    """Costs of every stage that computes something; none where the study is switched off.

    Texts that an operator cannot give, and answers that need no second look, make the run cheaper.
    """
    study = config.robustness
    if study is None:
        return []
    texts = _texts(config, study)
    embedded = 0
    if study.semantics.embedding is not None:
        embedded = round(texts.items * texts.compared * texts.characters / SENTENCE_CHARACTERS)
    costs = [
        Cost("robustness_generation", "", texts.n, 0, texts.n * TEXT_BYTES / 1e6, 500),
        Cost("robustness_validation", "", texts.n, embedded, texts.n * 2e-5, 1000),
    ]
    plan = Plan(config)
    for name in config.robustness_models():
        costs += _model_costs(config, study, name, texts, plan.weights_mb(name))
    return costs


def _model_costs(
    config: Config, study: RobustnessSettings, name: str, texts: _Texts, weights_mb: int
) -> list[Cost]:
    inference, kept = study.inference, study.inference.activations
    shape, dtype = model_shape(config, name), config.models[name].dtype
    per_token = _characters_per_token(config, name, texts.sample)
    prompt, answer = texts.characters / per_token, float(inference.max_new_tokens)
    if texts.has_gold:
        answer = min(answer, texts.gold_characters / per_token + 1)
    per_model = len(study.scoring.reward_models)
    stored = round(min(texts.items, kept.max_items or texts.items) * texts.per_item)
    # Scored with its gold answer, and answered once more where that is not what comes.
    read = texts.n * (prompt + answer) * (1 + OTHER_ANSWERS if texts.has_gold else 1)
    drawn = texts.n * inference.samples * (prompt + inference.max_new_tokens)
    store = stored * _kept_tokens(study, prompt) * _token_bytes(study, texts, shape, dtype)
    answers = texts.n * (1 + inference.samples)
    pairs = study.mediation.n_pairs
    patched = pairs * _places(study, shape)
    queries = 1 + QUERIES_SEEN * min(texts.numbers, NUMBER_QUERIES) if kept.patterns else 0
    compared = stored * shape.layers * (SHIFT_BYTES + shape.heads * queries * ATTENTION_BYTES)
    costs = [
        Cost("robustness_inference", name, texts.n,
             round(read + drawn + stored * prompt),
             (store + texts.n * (ANSWER_BYTES + 8 * inference.top_k)) / 1e6,
             1500 + 2 * weights_mb),
        Cost("robustness_rewards", name, answers,
             round(REWARD_PAIRS * answers * per_model * (prompt + answer)),
             2 * answers * per_model * REWARD_BYTES / 1e6, 2000),
        Cost("robustness_internals", name, stored, 0, compared / 1e6, 2000 + 2 * weights_mb),
        # A patch at layer l leaves the blocks before it alone: half of the work on average.
        Cost("robustness_mediation", name, pairs,
             round(patched * SWEEPS * (prompt + answer / 2) / 2),
             patched * SWEEPS * CELL_BYTES / 1e6, 1500 + 2 * weights_mb),
    ]  # fmt: skip
    scoring = study.scoring
    asked = (scoring.embedding is not None) + 2 * (scoring.nli is not None)
    if asked:
        tokens = round(answers * asked * OTHER_ANSWERS * answer)
        costs.append(Cost("robustness_semantics", name, answers, tokens,
                          answers * MEANING_BYTES / 1e6, 1000))  # fmt: skip
    return costs


def _texts(config: Config, study: RobustnessSettings) -> _Texts:
    items = study_items(study.data, config.seed).items
    cells = planned_cells(study)
    design = Design(cells, config.seed, frame(study.data), study.perturbations.edit_protected, {})
    rows = [row for item in items[:SAMPLED_ITEMS] for row in item_rows(item, design)[0]]
    n_sampled = min(len(items), SAMPLED_ITEMS)
    # Nobody has rewritten anything yet.
    rewrites = sum(cell.family == "rewrite" for cell in cells)
    is_compared = [row["family"] != "obfuscation" and row["operator"] != NULL for row in rows]
    return _Texts(
        items=len(items),
        per_item=len(rows) / n_sampled + rewrites,
        compared=sum(is_compared) / n_sampled + rewrites,
        sample=tuple(row["prompt"] for row in rows),
        characters=fmean(len(row["prompt"]) for row in rows),
        gold_characters=fmean(len(item.continuation or "") for item in items),
        has_gold=all(item.gold is not None for item in items),
        numbers=max(len(row["number_starts"]) for row in rows),
    )


def _characters_per_token(config: Config, name: str, prompts: Sequence[str]) -> float:
    for path in model_files(config, name):
        if Path(path).name == "tokenizer.json":
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(path)
            lengths = [len(found.ids) for found in tokenizer.encode_batch(list(prompts))]
            return sum(map(len, prompts)) / max(sum(lengths), 1)
    return CHARACTERS_PER_TOKEN


def _kept_tokens(study: RobustnessSettings, prompt_tokens: float) -> float:
    positions = study.inference.activations.positions
    if positions == "answer":
        return 1.0
    return prompt_tokens * (ROLES_SHARE if positions == "roles" else 1.0)


def _token_bytes(study: RobustnessSettings, texts: _Texts, shape: ModelShape, dtype: str) -> float:
    """Bytes of one token's states in the store."""
    kept = study.inference.activations
    layers = shape.layers if kept.layers is None else len(set(kept.layers))
    numbers = 0.0
    for component in kept.components:
        numbers += layers * (shape.neurons if component == "mlp_act" else shape.width)
        numbers += shape.width if component == "resid_post" else 0  # what enters the first block
    patterns = 0.0
    if kept.patterns and kept.positions != "answer":
        patterns += layers * shape.heads * (1 + min(texts.numbers, NUMBER_QUERIES))
    return numbers * STORED_BYTES[kept.dtype or dtype] + patterns * PATTERN_BYTES


def _places(study: RobustnessSettings, shape: ModelShape) -> int:
    """Sites and places of one sweep over one pair."""
    settings = study.mediation
    places = (shape.layers + 1) * RESIDUAL_PLACES if "resid_post" in settings.components else 0
    parts = sum(component != "resid_post" for component in settings.components)
    places += parts * shape.layers * PART_PLACES
    places += shape.layers * shape.heads * PART_PLACES if settings.heads else 0
    return places
