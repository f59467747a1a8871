"""Examples, answers and an activation store in which it is known what a typo does.

Words are tokens; an edited word falls into one token per character. States of untouched tokens
stand for their word and prompt, and what stands after an edit is moved by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.activations import ActivationWriter, SiteRecord, plan_store
from interpflow.tables.parquet import write_table
from interpflow.tables.schemas import table_schema

SENTENCE = "the boy finds red apples near old trees and sells 12 to some girl for 7"
WORDS = SENTENCE.split()
NUMBERS = [k for k, word in enumerate(WORDS) if word.isdigit()]
N_LAYERS, N_HEADS, WIDTH, N_NEURONS = 2, 3, 32, 20
PLANTED_HEAD, PLANTED_NEURON = (1, 2), (1, 7)
# operator, its family, which words it edits (edited and control words alternate)
OPERATORS = (
    ("null", "control", ()),
    ("control", "control", (3, 6)),
    ("keyboard", "typo", (2, 4)),
    ("deletion", "typo", (7, 9)),
    ("polite", "style", ()),
)


@dataclass(frozen=True)
class Planted:
    """How much the typo does: `shift` of the states after it, `lift` of the planted head's
    attention to edited words, `neuron` of the planted neuron at the answer. `broken_null`: the
    null operator's states are not the clean ones."""

    n_items: int = 30
    shift: float = 1.0
    lift: float = 1.0
    neuron: float = 0.0
    broken_null: bool = False
    seed: int = 0
    paths: dict[str, Path] = field(default_factory=dict)


def write(directory: Path, planted: Planted) -> dict[str, Path]:
    """Write examples, answers and store; returns their paths by keyword of `run_internals`."""
    rows, texts = examples(planted)
    paths = {
        "examples_path": directory / "examples.parquet",
        "answers_path": directory / "answers.parquet",
        "activations_path": directory / "activations",
    }
    write_table(paths["examples_path"], "robustness_examples", rows)
    write_table(paths["answers_path"], "robustness_answers", answers(rows, planted))
    _write_store(paths["activations_path"], rows, texts, planted)
    return paths


def examples(planted: Planted) -> tuple[list[dict[str, Any]], list[list[tuple[str, int]]]]:
    """Rows of `robustness_examples`, and the tokens of each: (text with leading space, word)."""
    rows, texts = [], []
    for base in range(planted.n_items):
        words = [f"{word}{'abcdefgh'[base % 8]}" if not word.isdigit() else word for word in WORDS]
        for operator, family, edited in (("clean", "clean", ()), *OPERATORS):
            row, tokens = _row(base, operator, family, words, edited)
            rows.append(row)
            texts.append(tokens)
    return rows, texts


def _row(
    base: int, operator: str, family: str, words: list[str], edited: tuple[int, ...]
) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    prefix = "Please " if operator == "polite" else ""
    new = [word[0] + "x" + word[2:] if k in edited else word for k, word in enumerate(words)]
    frame = "Question: "
    prompt, clean = f"{frame}{prefix}{' '.join(new)}.\nAnswer:", f"{frame}{' '.join(words)}."
    places = _places(new, len(frame) + len(prefix))
    clean_places = _places(words, len(frame))
    controls = tuple(k + 1 for k in edited)
    spans = {
        "edit": [(places[k][0] + 1, places[k][0] + 2) for k in edited],
        "clean": [(clean_places[k][0] + 1, clean_places[k][0] + 2) for k in edited],
        "word": [places[k] for k in edited],
        "clean_word": [clean_places[k] for k in edited],
        "control": [places[k] for k in controls],
        "clean_control": [clean_places[k] for k in controls],
        "number": [places[k] for k in NUMBERS],
    }
    if prefix:
        at = len(frame)
        spans |= {"edit": [(at, at + len(prefix))], "clean": [(at, at)],
                  "word": [(at, places[0][1])], "clean_word": [clean_places[0]]}  # fmt: skip
    row: dict[str, Any] = dict.fromkeys(table_schema("robustness_examples").names)
    row |= {
        "example_id": f"{base:03d}-{operator}", "base_id": f"b{base:03d}",
        "family_id": f"f{base:03d}", "template_id": f"t{base % 15}",
        "split": "confirm" if base % 2 else "discover", "source": "test", "family": family,
        "operator": operator, "placement": "any", "n_edits": len(edited) or None,
        "strength": 2 if prefix else None, "variant": 0, "prompt": prompt,
        "question_start": len(frame), "question_end": len(prompt) - len("\nAnswer:"),
        "gold": "5", "gold_kind": "number", "edit_operations": ["edit"] * len(spans["edit"]),
        "edit_distance": len(edited), "dose": len(edited) / len(clean),
    }  # fmt: skip
    for name, found in spans.items():
        row[f"{name}_starts"], row[f"{name}_ends"] = [a for a, _ in found], [b for _, b in found]
    tokens = [("Question", -2), (":", -3)]
    tokens += [(" Please", -4)] if prefix else []
    for k, word in enumerate(new):
        tokens += [(c, k) for c in [" " + word[0], *word[1:]]] if k in edited else [(" " + word, k)]
    return row, [*tokens, (".", -5), ("\n", -6), ("Answer", -7), (":", -8)]


def _places(words: list[str], start: int) -> list[tuple[int, int]]:
    found = []
    for word in words:
        found.append((start, start + len(word)))
        start += len(word) + 1
    return found


def answers(rows: list[dict[str, Any]], planted: Planted) -> list[dict[str, Any]]:
    """Clean prompts are right; of the typos every second item's is wrong."""
    found = []
    for row in rows:
        answer: dict[str, Any] = dict.fromkeys(table_schema("robustness_answers").names)
        answer |= {key: row[key] for key in answer if key in row}
        base = int(row["base_id"][1:])
        wrong = row["family"] == "typo" and base % 4 < 2
        answer |= {"model": "m", "accepted": True, "n_prompt_tokens": 30 + len(row["operator"]),
                   "strict_correct": not wrong}  # fmt: skip
        found.append(answer)
    return found


def _write_store(
    path: Path, rows: list[dict[str, Any]], texts: list[list[tuple[str, int]]], planted: Planted
) -> None:
    queries = ["answer", *(f"number{k}" for k in range(len(NUMBERS)))]
    sites = [SiteRecord("embed", width=WIDTH)]
    sites += [SiteRecord(f"resid_post.L{k}", width=WIDTH) for k in range(N_LAYERS)]
    sites += [SiteRecord(f"mlp_act.L{k}", width=N_NEURONS) for k in range(N_LAYERS)]
    sites += [SiteRecord(f"pattern_{query}.L{k}", width=N_HEADS)
              for query in queries for k in range(N_LAYERS)]  # fmt: skip
    ids = [row["example_id"] for row in rows]
    with ActivationWriter(path, plan_store(ids, [len(t) for t in texts], sites)) as writer:
        for row, tokens in zip(rows, texts):
            ends = np.cumsum([len(text) for text, _ in tokens])
            starts = ends - [len(text) for text, _ in tokens]
            assert row["prompt"] == "".join(text for text, _ in tokens)
            given = {"token_position": list(range(len(tokens))), "token_id": [1] * len(tokens),
                     "char_start": starts.tolist(), "char_end": ends.tolist()}  # fmt: skip
            writer.append([row["example_id"]], _states(row, tokens, queries, planted), given)


def _states(
    row: dict[str, Any], tokens: list[tuple[str, int]], queries: list[str], planted: Planted
) -> dict[str, np.ndarray]:
    base, operator = int(row["base_id"][1:]), row["operator"]
    typo = row["family"] == "typo"
    found: dict[str, np.ndarray] = {}
    for layer in range(-1, N_LAYERS):
        states = np.array([_vector(planted.seed, base, layer, text, word)
                           for text, word in tokens])  # fmt: skip
        if layer >= 0 and operator not in ("clean", "null"):
            first = next((i for i, start in enumerate(np.cumsum([len(t) for t, _ in tokens]))
                          if start > row["edit_starts"][0]), 0)  # fmt: skip
            push = np.random.default_rng([planted.seed, base, layer, len(operator)])
            # A typo moves the second layer most, the control edit and styles move all alike.
            size = planted.shift * (2.0 if typo and layer == 1 else 1.0)
            states[first:] += size * push.normal(size=WIDTH) / np.sqrt(WIDTH)
        if planted.broken_null and operator == "null" and layer == 1:
            states[-1, 0] += 1e-6 * max(1.0, abs(states[-1, 0])) * 10
        found["embed" if layer < 0 else f"resid_post.L{layer}"] = states.astype(np.float32)
    for layer in range(N_LAYERS):
        neurons = np.array([_vector(planted.seed + 1, base, layer, text, word)[:N_NEURONS]
                            for text, word in tokens])  # fmt: skip
        if typo and layer == PLANTED_NEURON[0]:
            noise = np.random.default_rng([base, len(operator)]).normal() / 4
            neurons[-1, PLANTED_NEURON[1]] += planted.neuron * (1 + noise)
        found[f"mlp_act.L{layer}"] = neurons.astype(np.float32)
    inside = [
        any(a < stop and stop - len(text.strip()) < b
            for a, b in zip(row["word_starts"], row["word_ends"]))
        for (text, _), stop in zip(tokens, np.cumsum([len(text) for text, _ in tokens]))
    ]  # fmt: skip
    for query in queries:
        at = len(tokens) - 1
        if query != "answer":
            wanted = NUMBERS[int(query[-1])]
            at = [word for _, word in tokens].index(wanted)
        for layer in range(N_LAYERS):
            pattern = np.zeros((len(tokens), N_HEADS))
            pattern[: at + 1] = 1 / (at + 1)
            if typo and layer == PLANTED_HEAD[0] and query == "answer":
                noise = np.random.default_rng([base, len(operator), 1]).uniform(0.5, 1.5)
                pattern[np.flatnonzero(inside), PLANTED_HEAD[1]] *= 1 + (planted.lift - 1) * noise
            found[f"pattern_{query}.L{layer}"] = pattern.astype(np.float32)
    return found


def _vector(seed: int, base: int, layer: int, text: str, word: int) -> np.ndarray:
    return np.random.default_rng([seed, base, layer + 1, word + 10, *text.encode()]).normal(
        size=WIDTH
    )
