"""Columns of the tables of the layer surgery study."""

from __future__ import annotations

import pyarrow as pa

from interpflow.tables.column_types import FLAG, INT, REAL, REPEATED, TEXT, WORDS

# A plan as it is written out ("0 1 3") and what tells runs of it apart.
_RUN = {"plan": REPEATED, "run": REPEATED}

SURGERY_TABLES: dict[str, dict[str, pa.DataType]] = {
    "surgery_items": {
        "example_id": TEXT,
        "family_id": TEXT,
        "split": TEXT,
        "task": TEXT,
        "kind": TEXT,
        "source": TEXT,
        "prompt": TEXT,
        "answer": TEXT,
        "scorer": TEXT,
        "accepted": WORDS,
        "pattern": TEXT,
        "family": TEXT,
    },
    # Items that a language model wrote, kept or not.
    "surgery_written": {
        "example_id": TEXT,
        "task": TEXT,
        "round": INT,
        "prompt": TEXT,
        "answer": TEXT,
        "scorer": TEXT,
        "accepted": WORDS,
        "pattern": TEXT,
        "kept": FLAG,
        "reason": TEXT,
    },
    # use: measure (loss under plans), lens (lenses are trained on them), agent (its tests).
    "surgery_texts": {
        "document_id": TEXT,
        "split": TEXT,
        "use": TEXT,
        "text": TEXT,
    },
    # The intact model: what decides which tasks are analysed. answered: each token of the reference
    # answer is the most probable one. generated: what it writes after the prompt; correct: by the
    # task's scorer, null where a judge decides and where there is no score.
    "surgery_intact": {
        "example_id": TEXT,
        "family_id": TEXT,
        "split": TEXT,
        "task": TEXT,
        "kind": TEXT,
        "n_tokens": INT,
        "log_prob": REAL,
        "rank": REAL,
        "answered": FLAG,
        "generated": TEXT,
        "correct": FLAG,
        "unscored": TEXT,
    },
    # role: structured, random_order or control; control_of: the plan that it is a control of.
    # distance: Kendall's; displacement: places that the block that moved furthest moved by.
    "surgery_plans": {
        "plan": TEXT,
        "label": TEXT,
        "kind": TEXT,
        "families": WORDS,
        "role": TEXT,
        "control_of": TEXT,
        "n_blocks": INT,
        "distance": INT,
        "displacement": INT,
        "moves_first": FLAG,
        "moves_last": FLAG,
    },
    # One item under one plan. Nats, over all tokens of the answer; answered: each token of the
    # reference answer is the most probable one; rank: worst mid-rank of its tokens; kl and
    # top1_kept: against the intact model, mean over the answer's tokens.
    "surgery_answers": {
        **_RUN,
        "example_id": TEXT,
        "n_tokens": INT,
        "log_prob": REAL,
        "delta_log_prob": REAL,
        "kl": REAL,
        "top1_kept": REAL,
        "rank": REAL,
        "answered": FLAG,
        "gained": WORDS,
        "lost": WORDS,
    },
    # One document under one plan: means over its tokens, nats per token.
    "surgery_text_losses": {
        **_RUN,
        "document_id": TEXT,
        "n_tokens": INT,
        "loss": REAL,
        "delta_loss": REAL,
        "kl": REAL,
        "top1_kept": REAL,
        "rank": REAL,
    },
    "surgery_generations": {
        **_RUN,
        "example_id": TEXT,
        "text": TEXT,
        "n_tokens": INT,
        "correct": FLAG,
        "format_score": REAL,
        "repetition": REAL,
    },
    # Answers that no rule scores. stage: gate (what decides whether the task is analysed) or sweep;
    # answer: what was put to the judges; correct: by most of their votes; outcome: judged, unclear
    # (no majority, a refusal), or empty, which is wrong without being asked about.
    "surgery_free_answers": {
        "stage": REPEATED,
        "plan": REPEATED,
        "example_id": TEXT,
        "answer": TEXT,
        "correct": FLAG,
        "judge": REPEATED,
        "outcome": REPEATED,
    },
    # depth: blocks run before the lens reads; lens: logit, tuned, bias or unigram.
    "surgery_lenses": {
        "lens": REPEATED,
        "depth": INT,
        "document_id": TEXT,
        "n_tokens": INT,
        "kl": REAL,
        "top1_kept": REAL,
        "entropy": REAL,
        "loss": REAL,
    },
    "surgery_exits": {
        "example_id": TEXT,
        "family_id": TEXT,
        "task": TEXT,
        "split": TEXT,
        "lens": TEXT,
        "first_match": INT,
        "stable_depth": INT,
        "kl_depth": INT,
    },
    "surgery_trajectories": {
        "prompt": INT,
        "text": TEXT,
        "position": INT,
        "token": TEXT,
        "lens": TEXT,
        "depth": INT,
        "top_token": TEXT,
        "probability": REAL,
        "kl": REAL,
        "final_rank": REAL,
        "final_probability": REAL,
    },
    # Minimal sufficient and necessary sets of blocks, found on discover and develop items. Shares
    # of the items answered intact that are still answered; bound_share: what the set must reach (or
    # stay below). is_minimal: leaving out any one block was tried and misses it; n_breaking: blocks
    # of which that holds on confirm items too. verdict: holds, fails or unclear, on confirm items.
    "surgery_sets": {
        "task": TEXT,
        "kind": TEXT,
        "blocks": TEXT,
        "plan": TEXT,
        "n_blocks": INT,
        "n_tried": INT,
        "found_share": REAL,
        "bound_share": REAL,
        "is_minimal": FLAG,
        "confirmed_share": REAL,
        "n_breaking": INT,
        "verdict": TEXT,
    },
    # One registered test of an agent, with what came of it. claim: the anomaly that it decides,
    # such as "swapped 3 and 4"; label: the plan by name, with the plan that it is compared with
    # where that is not the intact model; rerun_of: the registration whose slot went to a placebo.
    "surgery_tests": {
        "policy": TEXT,
        "number": INT,
        "registration": TEXT,
        "hypothesis": TEXT,
        "text": TEXT,
        "claim": TEXT,
        "label": TEXT,
        "plan": TEXT,
        "against": TEXT,
        "measure": TEXT,
        "task": TEXT,
        "metric": TEXT,
        "prediction": TEXT,
        "smallest_effect": REAL,
        "probability": REAL,
        "is_placebo": FLAG,
        "rerun_of": TEXT,
        "n_units": INT,
        "estimate": REAL,
        "ci_low": REAL,
        "ci_high": REAL,
        "p_value": REAL,
        "alpha": REAL,
        "verdict": TEXT,
    },
    # One run of one policy on one model with a planted anomaly, or on the model as it is.
    "surgery_judging": {
        "model": TEXT,
        "plant": TEXT,
        "planted_blocks": TEXT,
        "policy": TEXT,
        "seed": INT,
        "n_tests": INT,
        "n_confirmed": INT,
        "n_claims": INT,
        "n_true": INT,
        "n_false": INT,
        "discovered": FLAG,
        "brier": REAL,
        "base_rate_brier": REAL,
        "placebo_confirmed": INT,
        "n_placebos": INT,
        "forward_tokens": pa.int64(),
        "stopped": TEXT,
    },
}
