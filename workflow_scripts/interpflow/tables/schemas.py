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
