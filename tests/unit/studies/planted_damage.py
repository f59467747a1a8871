"""Prompts that turn on their verb, and a decoder in which one head carries it to the answer.

Known words are tokens, others fall into bytes. The head `PLANTED` looks from every token for the
verb and writes what it says; a misspelt verb leaves it nothing to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing

from interpflow.models.planted.plain_decoder import PlainDecoderConfig, PlainDecoderForCausalLM
from interpflow.models.reference.tokenizer import EOS, build_tokenizer, token_id
from interpflow.models.tokens import TemplatePolicy, apply_template, encode
from interpflow.studies.robustness.data.cells import CLEAN, Cell
from interpflow.studies.robustness.data.generation import example_row
from interpflow.studies.robustness.patches.pairs import DamagedPair, damaged_pairs
from interpflow.tables.schemas import table_schema
from interpflow.tasks.base_items import BaseItem
from interpflow.tasks.perturbations.operators import OPERATORS
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.text import PerturbedText, SourceText
from interpflow.tasks.variant_gold import VariantGold

PLANTED = (1, 2)  # layer and head
N_LAYERS, N_HEADS, HEAD_DIM, WIDTH = 3, 3, 4, 20
ANSWERS = {"finds": "yes", "sells": "no"}
LOST = "maybe"  # what is said where no verb is found
NAMES = ("Anna", "Omar", "Lena", "Paul", "Ruth", "Hugo", "Mary", "Ivan")
NOUNS = ("apples", "candles", "pencils", "baskets")
FRAME = ("Question: ", ".\nAnswer:")
CHAT = "{{ '<user> ' }}{{ messages[0]['content'] }}{{ ' <model>' }}"
BOS = "<bos>"

# Directions of the residual stream; the rest is noise.
ONE, IS_VERB, FOUND, SOLD, SAYS_YES, SAYS_NO = range(6)

Row = dict[str, Any]


def tokenizer(*, bos: bool = False, chat: bool = False) -> Any:
    words = [*ANSWERS, *ANSWERS.values(), LOST, *NAMES, *NOUNS, "red", "old", "today", "near",
             "trees", "Question", "Answer"]  # fmt: skip
    made = build_tokenizer(words, [".\n", ":", "."])
    if bos:
        made.add_special_tokens({"bos_token": BOS})
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, made.bos_token_id)]
        )
    if chat:
        made.chat_template = CHAT
    return made


def items(n: int, last: str = "near old trees") -> list[BaseItem]:
    """Questions with a verb (main), a number (protected) and words that do not matter (other)."""
    found = []
    for i in range(n):
        verb = tuple(ANSWERS)[i % 2]
        noun = NOUNS[i // 16 % 4]
        text = f"{NAMES[i % 8]} {verb} {10 + i} red {noun} {last}"
        spans = {word: (text.index(word), text.index(word) + len(word))
                 for word in (verb, str(10 + i), noun)}  # fmt: skip
        question = SourceText(text, (spans[str(10 + i)],), (spans[verb],), (spans[noun],))
        found.append(BaseItem(f"b{i:03d}", f"f{i:03d}", f"t{i % 4}", "test", question,
                              ANSWERS[verb], "text", f" {ANSWERS[verb]}"))  # fmt: skip
    return found


def example(item: BaseItem, cell: Cell, text: PerturbedText, around: tuple[str, str]) -> Row:
    gold = VariantGold(item.gold, item.continuation)
    return example_row(item, cell, text, gold, around)


def examples(
    found: Sequence[BaseItem],
    operators: Sequence[str],
    around: tuple[str, str] = FRAME,
    placement: Any = "main",
    n_edits: int = 1,
) -> dict[str, Row]:
    """Rows of `robustness_examples` by id, the clean ones among them."""
    rows = []
    for item in found:
        text = PerturbedText(item.question.text, CLEAN)
        rows.append(example(item, Cell("clean", CLEAN), text, around))
        for name in operators:
            known = OPERATORS[name]
            made = perturb(item.question, name, seed=0, example_id=item.base_id, n_edits=n_edits,
                           placement=placement, strength=2)  # fmt: skip
            if isinstance(made, PerturbedText):
                rows.append(example(item, Cell(known.family, name, placement), made, around))
    return {row["example_id"]: row for row in rows}


def answer(row: Mapping[str, Any], token_ids: Sequence[int], *, right: bool) -> Row:
    """A row of `robustness_answers`."""
    found: Row = dict.fromkeys(table_schema("robustness_answers").names)
    found |= {key: row[key] for key in found if key in row}
    return found | {"accepted": True, "token_ids": list(token_ids), "strict_correct": right,
                    "model": "planted"}  # fmt: skip


def claimed(rows: Mapping[str, Row], tokens: Any) -> list[Row]:
    """Answers as if every clean prompt were answered "yes" and every variant "no"."""
    yes, no = token_id(tokens, "Ġyes"), token_id(tokens, "Ġno")
    return [answer(row, [yes if row["family"] == "clean" else no], right=row["family"] == "clean")
            for row in rows.values()]  # fmt: skip


def answers_of(module: Any, tokens: Any, rows: Mapping[str, Row]) -> list[Row]:
    """Answers of one token, as the model gives them."""
    found = []
    for row in rows.values():
        ids = torch.tensor([encode(tokens, row["prompt"]).ids])
        with torch.no_grad():
            token = int(module(ids).logits[0, -1].argmax())
        said = tokens.decode([token]).strip()
        found.append(answer(row, [token], right=said == row["gold"]))
    return found


def pairs_of(
    rows: Mapping[str, Row], tokens: Any, policy: TemplatePolicy = "auto"
) -> list[DamagedPair]:
    """Every variant of a damaging family as a pair, answered as `claimed` says."""
    return damaged_pairs(rows, claimed(rows, tokens), tokens, policy, 10_000)[0]


def text_of(row: Mapping[str, Any], tokens: Any, policy: TemplatePolicy = "auto") -> str:
    return apply_template(tokens, row["prompt"], policy).text


def planted_model(tokens: Any, *, connected: bool = True) -> Any:
    """The decoder; disconnected, the planted head's output goes nowhere."""
    torch.manual_seed(0)
    config = PlainDecoderConfig(
        vocab_size=len(tokens), n_outputs=len(tokens), hidden_size=WIDTH, head_dim=HEAD_DIM,
        intermediate_size=8, num_hidden_layers=N_LAYERS, num_attention_heads=N_HEADS,
        max_position_embeddings=256, eos_token_id=token_id(tokens, EOS),
    )  # fmt: skip
    module: Any = PlainDecoderForCausalLM(config).eval()
    noise = SAYS_NO + 1
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(std=0.02)
        module.model.embed_positions.weight.zero_()
        embedding = module.model.embed_tokens.weight
        embedding[:, :noise] = 0
        embedding[:, noise:].normal_(std=0.5)
        embedding[:, ONE] = 1
        for verb, feature in zip(ANSWERS, (FOUND, SOLD)):
            for symbol in (f"Ġ{verb}", verb):
                embedding[token_id(tokens, symbol), [IS_VERB, feature]] = 1
        layer, head = PLANTED
        attention = module.model.layers[layer].self_attn
        own = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[own], projection.bias[own] = 0, 0
        attention.o_proj.weight[:, own] = 0
        first = own.start
        attention.q_proj.weight[first, ONE] = 10
        attention.k_proj.weight[first, IS_VERB] = 10
        attention.v_proj.weight[[first, first + 1], [FOUND, SOLD]] = 1
        if connected:
            attention.o_proj.weight[[SAYS_YES, SAYS_NO], [first, first + 1]] = 1
        module.lm_head.weight[:, :noise] = 0
        for direction, said in ((SAYS_YES, "yes"), (SAYS_NO, "no")):
            module.lm_head.weight[token_id(tokens, f"Ġ{said}"), direction] = 10
        module.lm_head.weight[token_id(tokens, f"Ġ{LOST}"), ONE] = 5
    return module
