"""Tables of a robustness study as a model with planted costs would fill them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.tables.parquet import write_table
from interpflow.tables.schemas import table_schema

CLEAN_ACCURACY = 0.9


@dataclass(frozen=True)
class Planted:
    """What one condition does: the share of right answers it loses, and what it adds to rewards."""

    family: str
    operator: str
    cost: float = 0.0
    n_edits: int | None = None
    strength: int | None = None
    placement: str = "any"
    reward: float = 0.0


DEFAULT = (
    Planted("control", "null"),
    Planted("control", "control", 0.02, n_edits=2, placement="other"),
    Planted("typo", "keyboard", 0.05, n_edits=1, reward=-0.1),
    Planted("typo", "keyboard", 0.15, n_edits=2, reward=-0.2),
    Planted("typo", "keyboard", 0.3, n_edits=3, reward=-0.3),
    Planted("typo", "deletion", 0.1, n_edits=2),
    Planted("style", "polite", 0.0, strength=2, reward=0.1),
)


@dataclass(frozen=True)
class Simulated:
    """Rows of the tables, by table; `write` puts them into a directory."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def write(self, directory: Path) -> dict[str, Path]:
        """Paths by the benchmark's argument names."""
        paths = {}
        for table, rows in self.tables.items():
            path = directory / f"{table}.parquet"
            write_table(path, table, rows)
            paths[f"{table.removeprefix('robustness_')}_path"] = path
        return paths


def simulate(
    conditions: tuple[Planted, ...] = DEFAULT,
    *,
    n_items: int = 120,
    n_samples: int = 0,
    rejected: float = 0.1,
    gold: bool = True,
    variants: int = 1,
    seed: int = 0,
) -> Simulated:
    """Two prompts a family; who answers a clean prompt wrong answers its variants wrong too.

    A wrong answer subtracts instead of adding where the operator is a typo, and slips elsewhere.
    """
    rng = np.random.default_rng(seed)
    out = Simulated({f"robustness_{name}": [] for name in (
        "examples", "answers", "samples", "rewards", "semantics", "judgements")})  # fmt: skip
    for item in range(n_items):
        left, right = int(rng.integers(30, 60)), int(rng.integers(2, 20))
        base: dict[str, Any] = {
            "base_id": f"b{item:04d}", "family_id": f"f{item // 2:04d}", "template_id": "t",
            "split": "confirm", "gold": str(left + right) if gold else None,
            "gold_kind": "number" if gold else "",
        }  # fmt: skip
        able = bool(rng.random() < CLEAN_ACCURACY)
        clean = Planted("clean", "clean")
        reward = float(rng.normal())
        _add(out, base, clean, 0, (left, right), able, reward, True, "slip")
        if n_samples:
            _add_samples(out, base, (left, right), able, n_samples, rng)
        for planted in conditions:
            for variant in range(variants):
                null = planted.operator == "null"
                kept = able and (null or bool(rng.random() >= planted.cost))
                noise = 0.0 if null else float(rng.normal(0, 0.1))
                accepted = null or bool(rng.random() >= rejected)
                way = "sign" if planted.family == "typo" and able else "slip"
                _add(
                    out, base, planted, variant, (left, right), kept,
                    reward + planted.reward + noise, accepted, way,
                )  # fmt: skip
    return out


def _add(
    out: Simulated,
    base: Mapping[str, Any],
    planted: Planted,
    variant: int,
    numbers: tuple[int, int],
    is_right: bool,
    reward: float,
    accepted: bool,
    way: str,
) -> None:
    left, right = numbers
    dose = 0.01 * (planted.n_edits or 0)
    example_id = f"{base['base_id']}.{planted.operator}.{planted.n_edits}.{planted.strength}." \
        f"{planted.placement}.{variant}"  # fmt: skip
    what: dict[str, Any] = {
        **base, "example_id": example_id, "family": planted.family, "operator": planted.operator,
        "placement": planted.placement, "n_edits": planted.n_edits, "rate": None,
        "strength": planted.strength, "variant": variant, "dose": dose,
    }  # fmt: skip
    prompt = f"Question: {left} apples and {right} more?\nAnswer:"
    start = prompt.index(f" {right} more") + 1
    chain = f" {left} + {right} = {left + right}. The answer is {left + right}."
    if is_right:
        generated, value = chain, left + right
    elif way == "sign":
        value = left - right
        generated = f" {left} - {right} = {value}. The answer is {value}."
    else:
        value = left + right + 1
        generated = f" {left} + {right} = {value}. The answer is {value}."
    has_gold = base["gold"] is not None
    _row(out, "robustness_examples", {
        **what, "source": "word_problems", "prompt": prompt, "continuation": chain,
        "number_starts": [10, start], "number_ends": [10 + len(str(left)), start + len(str(right))],
    })  # fmt: skip
    _row(out, "robustness_answers", {
        **what, "accepted": accepted, "model": "m", "n_prompt_tokens": 30, "generated": generated,
        "finish_reason": "stop", "gold_log_prob": -0.1 - 3 * (not is_right) if has_gold else None,
        "strict": str(value) if has_gold else None, "lenient": str(value) if has_gold else None,
        "strict_correct": is_right if has_gold else None,
        "lenient_correct": is_right if has_gold else None,
    })  # fmt: skip
    for view in ("typed", "clean"):
        _row(out, "robustness_rewards", {
            **what, "sample": -1, "model": "m", "reward_model": "reference", "view": view,
            "score": reward, "n_tokens": 40, "n_answer_tokens": 12 + (planted.operator == "polite"),
            "truncated": False,
        })  # fmt: skip
    if planted.operator != "clean":
        for kind, less in (("answer", 0.0), ("sampled", 0.1)):
            _row(out, "robustness_semantics", {
                **what, "model": "m", "kind": kind, "measure": "cosine",
                "value": (1.0 if is_right else 0.8) - less,
            })  # fmt: skip
        _row(out, "robustness_judgements", {
            **what, "model": "m", "judge": "j", "verdict": "same" if is_right else "worse",
        })  # fmt: skip


def _add_samples(
    out: Simulated,
    base: Mapping[str, Any],
    numbers: tuple[int, int],
    able: bool,
    n_samples: int,
    rng: np.random.Generator,
) -> None:
    clean_id = f"{base['base_id']}.clean.None.None.any.0"
    for sample in range(n_samples):
        is_right = bool(rng.random() < (0.8 if able else 0.1))
        value = sum(numbers) + (0 if is_right else int(rng.integers(1, 9)))
        _row(out, "robustness_samples", {
            **base, "example_id": clean_id, "operator": "clean", "model": "m", "sample": sample,
            "seed": sample, "generated": f" The answer is {value}.", "finish_reason": "stop",
            "strict_correct": is_right, "lenient_correct": is_right,
        })  # fmt: skip
    for sample in range(n_samples):
        _row(out, "robustness_rewards", {
            **base, "example_id": clean_id, "operator": "clean", "sample": sample, "model": "m",
            "reward_model": "reference", "view": "clean", "score": float(rng.normal(0, 0.5)),
            "n_tokens": 40, "n_answer_tokens": 12, "truncated": False,
        })  # fmt: skip
    _row(out, "robustness_semantics", {
        **base, "example_id": clean_id, "operator": "clean", "model": "m", "kind": "baseline",
        "measure": "cosine", "value": 0.9,
    })  # fmt: skip


def _row(out: Simulated, table: str, found: Mapping[str, Any]) -> None:
    """A row with null in the columns that are not given."""
    out.tables[table].append({column: found.get(column) for column in table_schema(table).names})
