"""The columns of every Parquet table. One row is one thing; ids tie the tables together."""

from __future__ import annotations

import pyarrow as pa

_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int32(), pa.float64(), pa.bool_()
_WORDS, _FLAGS, _INTS, _REALS = (
    pa.list_(pa.string()),
    pa.list_(pa.bool_()),
    pa.list_(pa.int32()),
    pa.list_(pa.float64()),
)

# The result record: what every statistic is stored as. Undefined numbers are null with a flag.
RESULT_COLUMNS = {
    "quantity": _TEXT,
    "estimate": _REAL,
    "ci_low": _REAL,
    "ci_high": _REAL,
    "ci_level": _REAL,
    "p_value": _REAL,
    "p_adjusted": _REAL,
    "test": _TEXT,
    "n_units": _INT,
    "n_clusters": _INT,
    "n_dropped": _INT,
    "n_resamples": _INT,
    "seed": pa.int64(),
    "family": _TEXT,
    "flags": _TEXT,
}

# Text that repeats from row to row: kept once, in memory too.
_REPEATED = pa.dictionary(pa.int32(), pa.string())

# A place in a model; layer −1 is the embedding, head −1 stands for all heads.
SITE_COLUMNS = {"component": _TEXT, "layer": _INT, "head": _INT}

_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "counting_examples": {
        "example_id": _TEXT,
        "family_id": _TEXT,
        "split": _TEXT,
        "source": _TEXT,
        "category": _TEXT,
        "template_id": _TEXT,
        "length": _INT,
        "count": _INT,
        "words": _WORDS,
        "is_match": _FLAGS,
        "match_positions": _INTS,
        "running_count": _INTS,
        "largest_other_count": _INT,
        "prompt": _TEXT,
        "word_starts": _INTS,
        "word_ends": _INTS,
        "answer": _TEXT,
    },
    "counting_pairs": {
        "pair_id": _TEXT,
        "family_id": _TEXT,
        "split": _TEXT,
        "kind": _TEXT,
        "category": _TEXT,
        "template_id": _TEXT,
        "length": _INT,
        "position": _INT,
        "delta": _INT,
        "clean_count": _INT,
        "corrupted_count": _INT,
        "clean_words": _WORDS,
        "corrupted_words": _WORDS,
        "clean_control_words": _WORDS,
        "corrupted_control_words": _WORDS,
    },
    # One row per list that a language model was asked for, as written: labels are its own.
    "counting_written_lists": {
        "round": _INT,
        "list_id": _TEXT,
        "ask_id": _TEXT,
        "request_key": _TEXT,
        "generator": _TEXT,
        "outcome": _TEXT,
        "category": _TEXT,
        "asked_length": _INT,
        "asked_count": _INT,
        "words": _WORDS,
        "word_categories": _WORDS,
        "is_member": _FLAGS,
    },
    # One row per word and category judged; `lexicon` null for a word that the lexicon has not.
    # Gold rows are words of known membership on which the validators are measured.
    "counting_word_verdicts": {
        "round": _INT,
        "category": _TEXT,
        "word": _TEXT,
        "lexicon": _TEXT,
        "judges": _WORDS,
        "votes": _WORDS,
        "verdict": _TEXT,
        "decided_by": _TEXT,
        "is_gold": _FLAG,
    },
    # One row per written list; `entry` is the place of the design that an accepted one fills.
    "counting_list_verdicts": {
        "round": _INT,
        "list_id": _TEXT,
        "category": _TEXT,
        "length": _INT,
        "count": _INT,
        "labels_right": _FLAG,
        "accepted": _FLAG,
        "reason": _TEXT,
        "entry": _INT,
    },
    # What generator, lexicon and validators do not agree on, for a person to look at.
    "counting_disagreements": {
        "category": _TEXT,
        "word": _TEXT,
        "generator_label": _FLAG,
        "n_lists": _INT,
        "lexicon": _TEXT,
        "judges": _WORDS,
        "votes": _WORDS,
        "verdict": _TEXT,
        "kind": _TEXT,
    },
    "counting_validation": {
        "item_id": _TEXT,
        "table": _TEXT,
        "valid": _FLAG,
        "reason": _TEXT,
    },
    "counting_answers": {
        "example_id": _TEXT,
        "family_id": _TEXT,
        "model": _TEXT,
        "split": _TEXT,
        "source": _TEXT,
        "category": _TEXT,
        "template_id": _TEXT,
        "length": _INT,
        "count": _INT,
        "largest_other_count": _INT,
        "scored_count": _INT,
        "expected_count": _REAL,
        "confidence": _REAL,
        "captured_mass": _REAL,
        "margin": _REAL,
        "tied": _FLAG,
        "log_probs": _REALS,
        "generated": _TEXT,
        "finish_reason": _TEXT,
        "strict_count": _INT,
        "lenient_count": _INT,
    },
    # One row per text: a base item as it is (operator clean), or one variant of it. Characters are
    # those of `prompt`; `clean_starts`/`clean_ends` those of the clean prompt.
    "robustness_examples": {
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "template_id": _TEXT,
        "split": _TEXT,
        "source": _TEXT,
        "family": _TEXT,
        "operator": _TEXT,
        "placement": _TEXT,
        "n_edits": _INT,  # asked for; null where an operator does not count edits
        "rate": _REAL,  # asked for, share of the words; null where edits were counted
        "strength": _INT,  # of styles; null elsewhere
        "variant": _INT,
        "prompt": _TEXT,
        "question_start": _INT,
        "question_end": _INT,
        "gold": _TEXT,
        "gold_kind": _TEXT,
        "continuation": _TEXT,
        "edit_operations": _WORDS,
        "edit_starts": _INTS,
        "edit_ends": _INTS,
        "clean_starts": _INTS,
        "clean_ends": _INTS,
        "word_starts": _INTS,  # the words that were edited, whole, in `prompt` ...
        "word_ends": _INTS,
        "clean_word_starts": _INTS,  # ... and in the clean prompt
        "clean_word_ends": _INTS,
        "control_starts": _INTS,  # untouched words matched to them, in `prompt` ...
        "control_ends": _INTS,
        "clean_control_starts": _INTS,  # ... and in the clean prompt
        "clean_control_ends": _INTS,
        "number_starts": _INTS,
        "number_ends": _INTS,
        "edit_distance": _INT,  # characters, Levenshtein
        "dose": _REAL,  # edited characters per character of the clean question
    },
    # A base item or variant that was not made or not accepted, and why; one row per text asked for.
    "robustness_validation": {
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family": _TEXT,
        "operator": _TEXT,
        "placement": _TEXT,
        "n_edits": _INT,
        "rate": _REAL,
        "strength": _INT,
        "variant": _INT,
        "accepted": _FLAG,
        "reason": _TEXT,
        "similarity": _REAL,
        "verdict": _TEXT,
        "judges": _WORDS,
        "votes": _WORDS,
    },
    "robustness_rewrites": {
        "rewrite_id": _TEXT,
        "base_id": _TEXT,
        "style": _TEXT,
        "variant": _INT,
        "generator": _TEXT,
        "request_key": _TEXT,
        "outcome": _TEXT,
        "question": _TEXT,
    },
    "robustness_meanings": {  # what validators say of a variant's meaning
        "example_id": _TEXT,
        "judges": _WORDS,
        "votes": _WORDS,
        "verdict": _TEXT,
    },
    # One row per example and model. Log-probabilities are nats of the gold continuation's tokens.
    "robustness_answers": {
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "template_id": _TEXT,
        "split": _TEXT,
        "family": _TEXT,
        "operator": _TEXT,
        "placement": _TEXT,
        "n_edits": _INT,
        "rate": _REAL,
        "strength": _INT,
        "variant": _INT,
        "dose": _REAL,
        "accepted": _FLAG,
        "model": _TEXT,
        "gold": _TEXT,
        "gold_kind": _TEXT,
        "n_prompt_tokens": _INT,
        "token_distance": _INT,  # Levenshtein to the clean prompt's tokens
        "generated": _TEXT,
        "token_ids": _INTS,
        "finish_reason": _TEXT,
        "gold_log_prob": _REAL,
        "gold_token_ids": _INTS,
        "gold_token_log_probs": _REALS,
        "top_ids": _INTS,  # at the answer's start
        "top_logits": _REALS,
        "strict": _TEXT,  # what the strict and the lenient reading find in `generated`
        "lenient": _TEXT,
        "strict_rule": _TEXT,
        "lenient_rule": _TEXT,
        "strict_correct": _FLAG,  # null without a gold answer
        "lenient_correct": _FLAG,
    },
    "robustness_samples": {  # drawn answers
        "example_id": _TEXT,
        "base_id": _TEXT,
        "operator": _TEXT,
        "model": _TEXT,
        "sample": _INT,
        "seed": pa.int64(),
        "generated": _TEXT,
        "finish_reason": _TEXT,
        "strict_correct": _FLAG,
        "lenient_correct": _FLAG,
    },
    # One row per answer, reward model and view: asked as typed, or with the clean question.
    "robustness_rewards": {
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "operator": _TEXT,
        "sample": _INT,  # −1: the greedy answer
        "model": _TEXT,
        "reward_model": _TEXT,
        "view": _TEXT,
        "score": _REAL,
        "n_tokens": _INT,
        "n_answer_tokens": _INT,
        "truncated": _FLAG,
    },
    # One row per variant's answer against the clean prompt's, and per two samples of one prompt.
    "robustness_semantics": {
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "operator": _TEXT,
        "model": _TEXT,
        "kind": _TEXT,  # answer (greedy), sampled (drawn), baseline (two drawn, clean prompt)
        "measure": _TEXT,  # cosine, nli_forward, nli_backward
        "value": _REAL,
    },
    "robustness_judgements": {  # blind comparison of a variant's answer with the clean one's
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "operator": _TEXT,
        "model": _TEXT,
        "judge": _TEXT,
        "clean_first": _TEXT,  # better, worse, same: the variant's answer, shown second
        "clean_second": _TEXT,
        "verdict": _TEXT,  # where both orders agree, else "order"
    },
    # One row per variant, site and place: how far its state is from the clean prompt's.
    "robustness_shifts": {
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "split": _TEXT,
        "operator": _TEXT,
        "n_edits": _INT,
        **SITE_COLUMNS,
        "place": _TEXT,  # answer, edited (last token of each edited word), unedited (mean)
        "cosine_distance": _REAL,
        "relative_norm": _REAL,  # |h' − h| / |h|
        "unrelated_cosine_distance": _REAL,  # clean prompt to another clean prompt
        "unrelated_relative_norm": _REAL,
        "kl": _REAL,  # of the next token by the logit lens, clean ‖ perturbed, nats; else null
    },
    # One row per variant, layer, head and query: attention to edited and to control words.
    "robustness_attention": {
        "example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "split": _TEXT,
        "operator": _TEXT,
        "n_edits": _INT,
        "layer": _INT,
        "head": _INT,
        "query": _TEXT,  # answer, or number:0, number:1, ...
        "edited_share": _REAL,
        "edited_lift": _REAL,  # share over the uniform causal null
        "clean_lift": _REAL,  # of the same words in the clean prompt
        "control_lift": _REAL,
        "clean_control_lift": _REAL,
        "log_did": _REAL,  # methods.md 4.6
    },
    "robustness_neurons": {
        "model": _TEXT,
        "layer": _INT,
        "neuron": _INT,
        "operator": _TEXT,
        "place": _TEXT,
        **RESULT_COLUMNS,
    },
    # A damaged prompt with its clean one, both followed by what their answers have in common.
    "robustness_pairs": {
        "pair_id": _TEXT,
        "example_id": _TEXT,
        "clean_example_id": _TEXT,
        "base_id": _TEXT,
        "family_id": _TEXT,
        "split": _TEXT,
        "operator": _TEXT,
        "clean_ids": _INTS,
        "perturbed_ids": _INTS,
        "clean_prompt_tokens": _INT,
        "perturbed_prompt_tokens": _INT,
        "clean_token": _INT,  # what follows: the clean run's next token, and the perturbed run's
        "perturbed_token": _INT,
        "aligned_perturbed": _INTS,  # positions that stand for each other
        "aligned_clean": _INTS,
        "alignment": _TEXT,  # exact (equal lengths) or edited
    },
    # A few pairs patched at each token alone: a row per pair, layer and token of the perturbed run.
    "robustness_token_effects": {
        "pair_id": _TEXT,
        "operator": _TEXT,
        "layer": _INT,
        "position": _INT,
        "token": _TEXT,
        "role": _TEXT,  # edited, number, answer, other; unaligned where nothing stands for it
        "base_logit_difference": _REAL,
        "donor_logit_difference": _REAL,
        "logit_difference": _REAL,
    },
    "robustness_pair_effects": {
        "pair_id": _TEXT,
        "family_id": _TEXT,
        "split": _TEXT,
        "operator": _TEXT,
        "alignment": _TEXT,
        "direction": _TEXT,  # denoise: clean state into the perturbed run; noise: the reverse
        "donor": _TEXT,  # real, control
        **SITE_COLUMNS,
        "slot": _TEXT,
        "ran": _FLAG,
        **{
            f"{run}{metric}": _REAL
            for metric in ("logit_difference", "kl", "margin")
            for run in ("", "base_", "donor_")
        },
    },
    # One row per kept token, in the order of the tensors' rows; `row` counts within the shard.
    # Characters are those of the example's own text; they, and the token, may be unknown (null).
    "activation_index": {
        "example_id": _REPEATED,
        "example_row": _INT,
        "token_position": _INT,
        "token_id": _INT,
        "char_start": _INT,
        "char_end": _INT,
        "role": _REPEATED,
        "shard": _INT,
        "row": _INT,
    },
    "activation_sites": {
        "site": _TEXT,
        **SITE_COLUMNS,
        "dtype": _TEXT,
        "width": _INT,
        "per": _TEXT,
        "allow_nonfinite": _FLAG,
        "model_revision": _TEXT,
        "tokenizer_digest": _TEXT,
    },
    "confusion": {
        "model": _TEXT,
        "readout": _TEXT,
        "truth": _INT,
        "response": _TEXT,
        "n": _INT,
    },
    "estimates": {
        "study": _TEXT,
        "model": _TEXT,
        "analysis": _TEXT,
        "factor": _TEXT,
        "level": _TEXT,
        **RESULT_COLUMNS,
    },
    "pair_effects": {
        "pair_id": _TEXT,
        "family_id": _TEXT,
        "split": _TEXT,
        "kind": _TEXT,
        "direction": _TEXT,
        "donor": _TEXT,
        **SITE_COLUMNS,
        "slot": _TEXT,
        "delta": _INT,
        "clean_count": _INT,
        "corrupted_count": _INT,
        "ran": _FLAG,
        **{
            f"{run}{metric}": _REAL
            for metric in ("logit_difference", "expected_count", "kl", "argmax_candidate")
            for run in ("", "base_", "donor_")
        },
    },
    "effect_map": {
        "model": _TEXT,
        "kind": _TEXT,
        "direction": _TEXT,
        **SITE_COLUMNS,
        "slot": _TEXT,
        "metric": _TEXT,
        **RESULT_COLUMNS,
        "sim_low": _REAL,
        "sim_high": _REAL,
    },
    "running_count": {
        "model": _TEXT,
        "split": _TEXT,
        "window": _TEXT,
        "donor": _TEXT,
        **SITE_COLUMNS,
        **RESULT_COLUMNS,
    },
    "probes": {
        "model": _TEXT,
        **SITE_COLUMNS,
        **RESULT_COLUMNS,
        "control_mean": _REAL,
        "control_max": _REAL,
        "position_r2": _REAL,
    },
}


def table_schema(name: str) -> pa.Schema:
    """The Arrow schema of a table; KeyError for an unknown name."""
    return pa.schema([pa.field(column, kind) for column, kind in _COLUMNS[name].items()])


def table_names() -> tuple[str, ...]:
    return tuple(_COLUMNS)
