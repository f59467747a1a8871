"""Columns of the tables of the robustness study."""

from __future__ import annotations

import pyarrow as pa

from interpflow.tables.column_types import (
    FLAG,
    INT,
    INTS,
    REAL,
    REALS,
    RESULT_COLUMNS,
    SITE_COLUMNS,
    TEXT,
    WORDS,
)

ROBUSTNESS_TABLES: dict[str, dict[str, pa.DataType]] = {
    "robustness_examples": {
        "example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "template_id": TEXT,
        "split": TEXT,
        "source": TEXT,
        "family": TEXT,
        "operator": TEXT,
        "placement": TEXT,
        "n_edits": INT,  # asked for; null where an operator does not count edits
        "rate": REAL,  # asked for, share of the words; null where edits were counted
        "strength": INT,  # of styles; null elsewhere
        "variant": INT,
        "prompt": TEXT,
        "question_start": INT,
        "question_end": INT,
        "gold": TEXT,
        "gold_kind": TEXT,
        "continuation": TEXT,
        "edit_operations": WORDS,
        "edit_starts": INTS,
        "edit_ends": INTS,
        "clean_starts": INTS,
        "clean_ends": INTS,
        "word_starts": INTS,  # the words that were edited, whole, in `prompt` ...
        "word_ends": INTS,
        "clean_word_starts": INTS,  # ... and in the clean prompt
        "clean_word_ends": INTS,
        "control_starts": INTS,  # untouched words matched to them, in `prompt` ...
        "control_ends": INTS,
        "clean_control_starts": INTS,  # ... and in the clean prompt
        "clean_control_ends": INTS,
        "number_starts": INTS,
        "number_ends": INTS,
        "edit_distance": INT,  # characters, Levenshtein
        "dose": REAL,  # edited characters per character of the clean question
    },
    # A base item or variant that was not made or not accepted, and why; one row per text asked for.
    "robustness_validation": {
        "example_id": TEXT,
        "base_id": TEXT,
        "family": TEXT,
        "operator": TEXT,
        "placement": TEXT,
        "n_edits": INT,
        "rate": REAL,
        "strength": INT,
        "variant": INT,
        "accepted": FLAG,
        "reason": TEXT,
        "similarity": REAL,
        "verdict": TEXT,
        "judges": WORDS,
        "votes": WORDS,
    },
    "robustness_rewrites": {
        "rewrite_id": TEXT,
        "base_id": TEXT,
        "style": TEXT,
        "variant": INT,
        "generator": TEXT,
        "request_key": TEXT,
        "outcome": TEXT,
        "question": TEXT,
    },
    "robustness_meanings": {  # what validators say of a variant's meaning
        "example_id": TEXT,
        "judges": WORDS,
        "votes": WORDS,
        "verdict": TEXT,
    },
    # One row per example and model. Log-probabilities are nats of the gold continuation's tokens.
    "robustness_answers": {
        "example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "template_id": TEXT,
        "split": TEXT,
        "family": TEXT,
        "operator": TEXT,
        "placement": TEXT,
        "n_edits": INT,
        "rate": REAL,
        "strength": INT,
        "variant": INT,
        "dose": REAL,
        "accepted": FLAG,
        "model": TEXT,
        "gold": TEXT,
        "gold_kind": TEXT,
        "n_prompt_tokens": INT,
        "token_distance": INT,  # Levenshtein to the clean prompt's tokens
        "generated": TEXT,
        "token_ids": INTS,
        "finish_reason": TEXT,
        "gold_log_prob": REAL,
        "gold_token_ids": INTS,
        "gold_token_log_probs": REALS,
        "top_ids": INTS,  # at the answer's start
        "top_logits": REALS,
        "strict": TEXT,  # what the strict and the lenient reading find in `generated`
        "lenient": TEXT,
        "strict_rule": TEXT,
        "lenient_rule": TEXT,
        "strict_correct": FLAG,  # null without a gold answer
        "lenient_correct": FLAG,
    },
    "robustness_samples": {  # drawn answers
        "example_id": TEXT,
        "base_id": TEXT,
        "operator": TEXT,
        "model": TEXT,
        "sample": INT,
        "seed": pa.int64(),
        "generated": TEXT,
        "finish_reason": TEXT,
        "strict_correct": FLAG,
        "lenient_correct": FLAG,
    },
    # One row per answer, reward model and view: asked as typed, or with the clean question.
    "robustness_rewards": {
        "example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "operator": TEXT,
        "sample": INT,  # −1: the greedy answer
        "model": TEXT,
        "reward_model": TEXT,
        "view": TEXT,
        "score": REAL,
        "n_tokens": INT,
        "n_answer_tokens": INT,
        "truncated": FLAG,
    },
    # One row per variant's answer against the clean prompt's, and per two samples of one prompt.
    "robustness_semantics": {
        "example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "operator": TEXT,
        "model": TEXT,
        "kind": TEXT,  # answer (greedy), sampled (drawn), baseline (two drawn, clean prompt)
        "measure": TEXT,  # cosine, nli_forward, nli_backward
        "value": REAL,
    },
    "robustness_judgements": {  # blind comparison of a variant's answer with the clean one's
        "example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "operator": TEXT,
        "model": TEXT,
        "judge": TEXT,
        "clean_first": TEXT,  # better, worse, same: the variant's answer, shown second
        "clean_second": TEXT,
        "verdict": TEXT,  # where both orders agree, else "order"
    },
    # One row per variant, site and place: how far its state is from the clean prompt's.
    "robustness_shifts": {
        "example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "split": TEXT,
        "operator": TEXT,
        "n_edits": INT,
        **SITE_COLUMNS,
        "place": TEXT,  # answer, edited (last token of each edited word), unedited (mean)
        "cosine_distance": REAL,
        "relative_norm": REAL,  # |h' − h| / |h|
        "unrelated_cosine_distance": REAL,  # clean prompt to another clean prompt
        "unrelated_relative_norm": REAL,
        "kl": REAL,  # of the next token by the logit lens, clean ‖ perturbed, nats; else null
    },
    # One row per variant, layer, head and query: attention to edited and to control words.
    "robustness_attention": {
        "example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "split": TEXT,
        "operator": TEXT,
        "n_edits": INT,
        "layer": INT,
        "head": INT,
        "query": TEXT,  # answer, or number:0, number:1, ...
        "edited_share": REAL,
        "edited_lift": REAL,  # share over the uniform causal null
        "clean_lift": REAL,  # of the same words in the clean prompt
        "control_lift": REAL,
        "clean_control_lift": REAL,
        "log_did": REAL,  # methods.md 4.6
    },
    "robustness_neurons": {
        "model": TEXT,
        "layer": INT,
        "neuron": INT,
        "operator": TEXT,
        "place": TEXT,
        **RESULT_COLUMNS,
    },
    # A damaged prompt with its clean one, both followed by what their answers have in common.
    "robustness_pairs": {
        "pair_id": TEXT,
        "example_id": TEXT,
        "clean_example_id": TEXT,
        "base_id": TEXT,
        "family_id": TEXT,
        "split": TEXT,
        "operator": TEXT,
        "clean_ids": INTS,
        "perturbed_ids": INTS,
        "clean_prompt_tokens": INT,
        "perturbed_prompt_tokens": INT,
        "clean_token": INT,  # what follows: the clean run's next token, and the perturbed run's
        "perturbed_token": INT,
        "aligned_perturbed": INTS,  # positions that stand for each other
        "aligned_clean": INTS,
        "alignment": TEXT,  # exact (equal lengths) or edited
    },
    # A few pairs patched at each token alone: a row per pair, layer and token of the perturbed run.
    "robustness_token_effects": {
        "pair_id": TEXT,
        "operator": TEXT,
        "layer": INT,
        "position": INT,
        "token": TEXT,
        "role": TEXT,  # edited, number, answer, other; unaligned where nothing stands for it
        "base_logit_difference": REAL,
        "donor_logit_difference": REAL,
        "logit_difference": REAL,
    },
    "robustness_pair_effects": {
        "pair_id": TEXT,
        "family_id": TEXT,
        "split": TEXT,
        "operator": TEXT,
        "alignment": TEXT,
        "direction": TEXT,  # denoise: clean state into the perturbed run; noise: the reverse
        "donor": TEXT,  # real, control
        **SITE_COLUMNS,
        "slot": TEXT,
        "ran": FLAG,
        **{
            f"{run}{metric}": REAL
            for metric in ("logit_difference", "kl", "margin")
            for run in ("", "base_", "donor_")
        },
    },
    # One row per kept token, in the order of the tensors' rows; `row` counts within the shard.
    # Characters are those of the example's own text; they, and the token, may be unknown (null).
}
