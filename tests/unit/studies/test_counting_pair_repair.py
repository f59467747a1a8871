"""Pairs in subword tokenizers: words of other widths give way, answers may share first tokens."""

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from interpflow.config.base import Range
from interpflow.config.counting import CountingData, CountingPairs
from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.models.tokens import apply_template
from interpflow.studies.counting.generation import generate
from interpflow.studies.counting.mediation import run_mediation
from interpflow.studies.counting.pair_selection import select_pairs
from interpflow.studies.counting.prepared_pairs import (
    LONGEST_TAIL,
    NO_ANSWER_TOKEN,
    minimal_slots,
    prefix_slots,
    prepare_pairs,
    read_wording,
    tail_length,
)
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, read_table
from interpflow.tasks.counting.check import check_pair
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import answer_text, load_templates

LEXICON = load_lexicon()
TEMPLATES = {template.id: template for template in load_templates()}
# How GPT-4's and Llama 3's tokenizers cut text: a mark sticks to the letters after it, a space to
# letters but not to digits. With {1} every digit stands alone, as in Qwen's.
CUTS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BOS, TURN = "<bos>", "<turn>"
CHAT = (
    "{{ bos_token }}<turn>user\n{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "<turn>" + "Answer with a number and nothing else. " * 4 + "model\n"
)
SETTINGS = CountingPairs(
    n_minimal=16, n_prefix=32, n_random=8, lengths=Range(min=4, max=10), templates=["question"]
)


def train(kind: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 1500 symbols: most words take two to four."""
    backend = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")
    digits = "{1}" if kind == "qwen" else "{1,3}"
    split = pre_tokenizers.Split(Regex(CUTS.replace("DIGITS", digits)), "isolated")
    backend.pre_tokenizer = bytes_ if kind == "gpt2" else pre_tokenizers.Sequence([split, bytes_])
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[BOS, "<eos>", TURN], show_progress=False,
    )  # fmt: skip
    texts = [template.text for template in TEMPLATES.values()]
    numbers = [f"({n}) {n}" for n in range(20)] * 20
    spaced = [f" {word}, {word}" for word in LEXICON.words]
    backend.train_from_iterator([*texts * 5, *numbers, *spaced], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, eos_token="<eos>", pad_token="<eos>"
    )


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: train(kind) for kind in ("gpt2", "llama3", "qwen")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    here = tmp_path_factory.mktemp("made")
    settings = SETTINGS.model_copy(
        update={"n_minimal": 40, "n_prefix": 80, "templates": ["parentheses", "question"]}
    )
    generate(
        CountingData(), settings, 0, lexicon_path=None, templates_path=None,
        examples_path=here / "examples.parquet", pairs_path=here / "pairs.parquet",
    )  # fmt: skip
    return here / "pairs.parquet"


def chosen(made, **values):
    rows = read_rows(made, "counting_pairs")
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def shown(tokens, positions):
    return "".join(tokens.texts[i] for i in positions)


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
@pytest.mark.parametrize("pairs", ["minimal", "prefix", "random"])
def test_repaired_pairs_are_right_and_line_up_word_by_word(tokenizers, made, kind, pairs):
    wording = read_wording(tokenizers[kind], LEXICON, TEMPLATES["parentheses"], "auto", 10)
    rows = chosen(made, kind=pairs, template_id="parentheses")
    prepared, refused = prepare_pairs(rows, wording, len(rows))
    assert len(prepared) + sum(refused.values()) == len(rows)
    assert len(prepared) >= 0.8 * len(rows)
    assert sum(pair.repaired for pair in prepared) > len(prepared) / 2
    originals = {row["pair_id"]: row for row in rows}
    families = {row["family_id"]: row for row in rows}
    for pair in prepared:
        assert check_pair(pair.row, LEXICON) == ""
        assert (pair.row["pair_id"] in originals) != pair.repaired
        original = families[pair.row["family_id"]]
        assert pair.row["clean_words"] == original["clean_words"]
        assert pair.row["split"] == original["split"]
        lists = {
            "clean": pair.clean, "corrupted": pair.corrupted,
            "clean_control": pair.clean_control, "corrupted_control": pair.corrupted_control,
        }  # fmt: skip
        for name, tokens in lists.items():
            if tokens is None:
                assert pairs == "random"
                continue
            assert len(tokens.ids) == len(pair.clean.ids)
            for word, mine, clean in zip(
                pair.row[f"{name}_words"], tokens.word_positions, pair.clean.word_positions
            ):
                assert mine == clean
                assert shown(tokens, mine).strip(" [,") == word
    assert len({pair.row["pair_id"] for pair in prepared}) == len(prepared)


def test_repair_is_decided_by_the_pair_alone(tokenizers, made):
    wording = read_wording(tokenizers["gpt2"], LEXICON, TEMPLATES["parentheses"], "auto", 10)
    rows = chosen(made, kind="prefix", template_id="parentheses")[:12]
    forward = {pair.row["pair_id"]: pair.row for pair in prepare_pairs(rows, wording, 12)[0]}
    backward = {pair.row["pair_id"]: pair.row for pair in prepare_pairs(rows[::-1], wording, 12)[0]}
    assert forward == backward


def test_a_clean_word_that_nothing_can_match_refuses_the_pair(tokenizers, made):
    wording = read_wording(tokenizers["gpt2"], LEXICON, TEMPLATES["parentheses"], "auto", 10)
    row = chosen(made, kind="prefix", template_id="parentheses")[0]
    widest = max(wording.widths.widths[0], key=lambda word: wording.widths.widths[0][word][-1])
    row["clean_words"][0] = widest
    row["category"] = next(iter(LEXICON.categories_of(widest)))
    prepared, refused = prepare_pairs([row], wording, 1)
    assert prepared == []
    assert sum(refused.values()) == 1
    assert any("as many tokens as" in reason for reason in refused)


@pytest.mark.parametrize("kind", ["llama3", "qwen"])
def test_answers_that_begin_alike_are_read_at_the_token_that_differs(tokenizers, made, kind):
    tokenizer, template = tokenizers[kind], TEMPLATES["question"]
    wording = read_wording(tokenizer, LEXICON, template, "auto", 10)
    assert wording.answers.shared_texts == (" ",)
    rows = chosen(made, kind="minimal", template_id="question")
    prepared, refused = prepare_pairs(rows, wording, len(rows))
    assert refused[NO_ANSWER_TOKEN] == sum(
        max(row["clean_count"], row["corrupted_count"]) > wording.answers.counts[-1] for row in rows
    )
    for pair in prepared[:5]:
        bare = pair.clean.text.removesuffix(" ")
        for count in wording.answers.counts:
            whole = tokenizer(bare + answer_text(template, count))["input_ids"]
            expected = [*pair.clean.ids, wording.answers.token_ids[count]]
            assert whole[: len(expected)] == expected
        assert pair.clean.texts[pair.clean.answer_position] == " "


def test_counts_that_one_digit_begins_end_before_ten(tokenizers, made):
    wording = read_wording(tokenizers["qwen"], LEXICON, TEMPLATES["question"], "auto", 10)
    assert wording.answers.counts == tuple(range(10))
    selection = select_pairs(chosen(made, template_id="question"), wording, SETTINGS)
    assert "counts 0 to 9" in selection.report["note"]
    assert "' '" in selection.report["note"]


def test_a_wording_whose_answers_cannot_be_told_apart_is_refused():
    with pytest.raises(UserError, match="no token tells the counts 0 to 2 apart"):
        read_wording(knowing_no_character(), LEXICON, TEMPLATES["parentheses"], "auto", 10)


def knowing_no_character():
    """Every character is the unknown token."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, BOS: 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_too_few_pairs_stop_the_run_with_the_reasons(tokenizers, made):
    wording = read_wording(tokenizers["gpt2"], LEXICON, TEMPLATES["parentheses"], "auto", 10)
    rows = chosen(made, template_id="parentheses")
    few = [row for row in rows if row["kind"] != "prefix"] + chosen(
        made, template_id="parentheses", kind="prefix"
    )[:9]
    settings = SETTINGS.model_copy(update={"templates": ["parentheses"]})
    with pytest.raises(UserError) as raised:
        select_pairs(few, wording, settings)
    assert "of 32 prefix pairs" in str(raised.value)
    assert "counting.pairs.oversample" in str(raised.value)
    relaxed = settings.model_copy(update={"min_used_share": 0.25})
    assert 8 <= len(select_pairs(few, wording, relaxed).pairs["prefix"]) <= 9


def test_refused_reasons_name_the_remedy(tokenizers, made):
    wording = read_wording(tokenizers["qwen"], LEXICON, TEMPLATES["question"], "auto", 10)
    rows = chosen(made, template_id="question")
    for row in rows:
        row["clean_count"] = 10
    with pytest.raises(UserError) as raised:
        select_pairs(rows, wording, SETTINGS)
    assert NO_ANSWER_TOKEN in str(raised.value)
    assert "within 9 words" in str(raised.value)


def test_a_chat_template_keeps_one_bos_and_the_right_words(tokenizers, made):
    tokenizer = train("llama3")
    tokenizer.chat_template = CHAT
    wording = read_wording(tokenizer, LEXICON, TEMPLATES["parentheses"], "auto", 10)
    given = apply_template(tokenizer, "x", "auto").text
    assert given.startswith(BOS)
    for kind in ("minimal", "prefix"):
        rows = chosen(made, kind=kind, template_id="parentheses")
        prepared, _ = prepare_pairs(rows, wording, 10)
        assert len(prepared) == 10
        n_tail = tail_length(prepared)
        assert n_tail == LONGEST_TAIL + 1
        for pair in prepared:
            assert pair.clean.ids.count(tokenizer.bos_token_id) == 1
            assert pair.clean.ids[0] == tokenizer.bos_token_id
            words, k = pair.row["clean_words"], pair.row["position"]
            if kind == "minimal":
                places = minimal_slots(pair, n_tail)
                assert shown(pair.clean, places["item"]).strip(" [") == words[k]
                assert (
                    shown(pair.corrupted, places["item"]).strip(" [")
                    == (pair.row["corrupted_words"][k])
                )
                assert {f"tail-{LONGEST_TAIL}", "tail-1"} <= set(places)
                assert f"tail-{LONGEST_TAIL + 1}" not in places
                assert "model".endswith(shown(pair.clean, places["answer"]))
            else:
                places = prefix_slots(pair, 2)
                assert shown(pair.clean, places["prefix"]).strip(" [") == " ".join(words[:k])
                far = "" if places["far"] is None else shown(pair.clean, places["far"])
                assert far.strip() == " ".join(words[k + 2 :])


def test_several_wordings_share_no_tail_but_the_answer(tokenizers, made):
    wording = read_wording(tokenizers["llama3"], LEXICON, TEMPLATES["parentheses"], "auto", 10)
    rows = chosen(made, template_id="parentheses")
    one = SETTINGS.model_copy(update={"templates": ["parentheses"]})
    two = SETTINGS.model_copy(update={"templates": ["parentheses", "question"]})
    assert select_pairs(rows, wording, one).n_tail > 1
    both = select_pairs(rows, wording, two)
    assert both.n_tail == 1
    assert both.report["tail_tokens"] == [" ("]


@pytest.fixture(scope="module")
def swept(tokenizers, made, tmp_path_factory):
    """A random model with subwords, shared answer tokens and a chat template, patched."""
    here = tmp_path_factory.mktemp("subwords")
    tokenizer = train("llama3")
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(here / "model")
    tokenizer.save_pretrained(here / "model")
    write_document(here / "benchmark.json", "counting_benchmark", {"mediation_refused": ""})
    run_mediation(
        "subwords", ModelSettings(local=str(here / "model")), made, here / "benchmark.json",
        SETTINGS, components=["resid_post"], heads=False, window=2, seed=0,
        lexicon_path=None, templates_path=None, pairs_path=here / "pairs.parquet",
        effects_path=here / "effects.parquet", gates_path=here / "gates.json",
    )  # fmt: skip
    return here


def test_a_subword_model_runs_end_to_end(swept):
    table = read_table(swept / "effects.parquet", "pair_effects").to_pandas()
    report = read_document(swept / "gates.json", "counting_gates")["templates"]["question"]
    assert all(row["passed"] for row in report["gates"]["rows"])
    assert report["pairs"]["prefix"]["repaired"] > 0
    assert report["tail_tokens"][-1] == " "
    last = table[(table["slot"] == "answer") & (table["layer"] == 1)]
    assert (last["logit_difference"] - last["donor_logit_difference"]).abs().max() < 1e-4
    assert last["logit_difference"].abs().max() > 1e-3


def test_the_pairs_written_are_those_patched(swept):
    used = read_rows(swept / "pairs.parquet", "counting_pairs")
    table = read_table(swept / "effects.parquet", "pair_effects").to_pandas()
    assert {row["pair_id"] for row in used} == set(table["pair_id"])
    assert all(check_pair(row, LEXICON) == "" for row in used)
    report = read_document(swept / "gates.json", "counting_gates")["templates"]["question"]
    minimal = [row for row in used if row["kind"] == "minimal"]
    lengths = [
        sum(len(row[f"{side}_words"][row["position"]]) for row in minimal) / len(minimal)
        for side in ("clean", "corrupted")
    ]
    (found,) = [
        row for row in report["pairs"]["minimal"]["balance"] if row["covariate"] == "word length"
    ]
    assert [found["mean_first"], found["mean_second"]] == pytest.approx(lengths)
