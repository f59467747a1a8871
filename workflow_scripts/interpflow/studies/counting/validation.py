"""Is the counting data what it claims to be? Labels, design, leakage, duplicates, diversity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.config.counting import CountingValidation
from interpflow.config.identity import derived_seed
from interpflow.errors import UserError
from interpflow.stats.association import categorical_association, eta_squared
from interpflow.stats.diversity import diversity
from interpflow.stats.duplicates import find_duplicates
from interpflow.stats.flatness import flatness
from interpflow.stats.intervals import wilson
from interpflow.studies.counting.pair_balance import BAND_RANK, swapped_word_balance
from interpflow.studies.counting.written_examples import judged_memberships
from interpflow.studies.counting.written_state import NO_ROUNDS, WrittenRounds
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.counting.check import check_example, check_pair
from interpflow.tasks.counting.lexicon import Lexicon, load_lexicon

N_RESAMPLES = 999  # for the p-values printed here; the gates rest on effect sizes
DIVERSITY_TOKENS = 2000  # sources are compared at equal size

Row = Mapping[str, Any]


def validate(
    examples_path: Path | str,
    pairs_path: Path | str,
    settings: CountingValidation,
    seed: int,
    *,
    lexicon_path: str | None,
    table_path: Path | str,
    document_path: Path | str,
    rounds: WrittenRounds = NO_ROUNDS,
    provenance: Provenance | None = None,
) -> None:
    """Write the table and the document `counting_validation`.

    `rounds`: where words that the lexicon has not were judged. Raises UserError with a table of the
    gates that failed; nothing runs on such data.
    """
    lexicon = load_lexicon(Path(lexicon_path) if lexicon_path else None).with_memberships(
        judged_memberships(rounds)
    )
    examples = read_rows(examples_path, "counting_examples")
    pairs = read_rows(pairs_path, "counting_pairs")
    reasons = [check_example(row, lexicon) for row in examples]
    pair_reasons = [check_pair(row, lexicon) for row in pairs]
    document = assess(examples, pairs, reasons, pair_reasons, lexicon, settings, seed)
    failed = [gate for gate in document["gates"] if not gate["passed"]]
    if failed:
        raise UserError(
            "the counting data failed its gates:\n" + _failure_table(failed),
            where=str(examples_path),
            remedy="change counting.data or relax counting.validation",
        )
    rows = _verdict_rows(examples, reasons, "example_id", "counting_examples")
    rows += _verdict_rows(pairs, pair_reasons, "pair_id", "counting_pairs")
    write_table(table_path, "counting_validation", rows, provenance)
    write_document(document_path, "counting_validation", document, provenance)
    print(f"{len(examples)} prompts and {len(pairs)} pairs pass {len(document['gates'])} gates")


def assess(
    examples: Sequence[Row],
    pairs: Sequence[Row],
    reasons: Sequence[str],
    pair_reasons: Sequence[str],
    lexicon: Lexicon,
    settings: CountingValidation,
    seed: int,
) -> dict[str, Any]:
    """All measures and the gates on them; `reasons` are empty where an item is right."""
    lists = _base_lists(examples)
    factors = _flatness(lists, examples, settings, seed)
    leaks = _associations(lists, examples, lexicon, settings, seed)
    duplicates = find_duplicates(
        [[row["category"], *row["words"]] for row in lists], threshold=settings.duplicate_similarity
    )
    balance = _pair_balance(pairs, lexicon, settings.max_pair_imbalance)
    gates = [
        _gate("invalid prompts", _share(reasons), settings.max_invalid_share),
        _gate("invalid pairs", _share(pair_reasons), settings.max_invalid_share),
        _gate("duplicates", duplicates.share_in_duplicates, settings.max_duplicate_share),
        *[_gate(f"flat over {n}", f["total_variation"], settings.max_imbalance, f["exact"])
          for n, f in factors.items()],
        *[_gate(f"count against {n}", leak["cramers_v"], settings.max_association)
          for n, leak in leaks.items() if "cramers_v" in leak],
        *[{"name": f"pair balance: {row['covariate']}", "value": row["smd"],
           "threshold": settings.max_pair_imbalance, "passed": row["passed"]} for row in balance],
    ]  # fmt: skip
    return {
        "n_prompts": len(examples),
        "n_lists": len(lists),
        "n_pairs": dict(Counter(row["kind"] for row in pairs)),
        "invalid": dict(Counter(reason for reason in [*reasons, *pair_reasons] if reason)),
        "flatness": factors,
        "association_with_count": leaks,
        "duplicates": {
            "share": duplicates.share_in_duplicates,
            "largest_component": duplicates.largest_component,
            "similarity": settings.duplicate_similarity,
        },
        "diversity": _diversity(lists),
        "pair_balance": balance,
        "validity_by": {
            factor: _validity(examples, reasons, factor)
            for factor in ("category", "length", "count", "source")
        },
        "gates": gates,
    }


def _base_lists(examples: Sequence[Row]) -> list[Row]:
    """One row per base list: a list asked in several wordings counts once."""
    return list({row["family_id"]: row for row in examples}.values())


def _flatness(
    lists: Sequence[Row], examples: Sequence[Row], settings: CountingValidation, seed: int
) -> dict[str, dict[str, Any]]:
    """Distance of each factor's use from flat, over all combinations of the levels that occur.

    The gate is on the distance itself: a systematic design is fixed, not a sample of one.
    """
    categories = sorted({row["category"] for row in lists})
    shapes = sorted({(row["length"], row["count"]) for row in lists})
    cells = Counter((row["category"], row["length"], row["count"]) for row in lists)
    levels = {
        "category": [sum(row["category"] == c for row in lists) for c in categories],
        "design cell": [cells[c, *shape] for c in categories for shape in shapes],
        "template": list(Counter(row["template_id"] for row in examples).values()),
    }
    for length in sorted({row["length"] for row in lists}):
        used = Counter(
            position
            for row in lists
            if row["length"] == length
            for position in row["match_positions"]
        )
        levels[f"match position (length {length})"] = [used[place] for place in range(length)]
    found = {}
    for name, counts in levels.items():
        if len(counts) < 2 or sum(counts) == 0:
            continue
        flat = flatness(
            counts, limit=settings.max_imbalance, n_resamples=N_RESAMPLES,
            seed=derived_seed(seed, "flatness", name),
        )  # fmt: skip
        found[name] = {
            "total_variation": flat.tv.estimate,
            "chi2": flat.chi2.estimate,
            "p_value": flat.chi2.p_value,
            # Cramér's V against the flat distribution.
            "cramers_v": flat.effect_size / (len(counts) - 1) ** 0.5,
            # One more or less per level is all that whole numbers allow.
            "exact": max(counts) - min(counts) <= 1,
            "levels": len(counts),
        }
    return found


def _associations(
    lists: Sequence[Row],
    examples: Sequence[Row],
    lexicon: Lexicon,
    settings: CountingValidation,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Leakage between the count and what should not tell of it, within list length."""
    found: dict[str, dict[str, Any]] = {}
    for name, rows, key in (("category", lists, "category"), ("template", examples, "template_id")):
        if len({row[key] for row in rows}) < 2:
            continue
        result = categorical_association(
            [row["count"] for row in rows],
            [row[key] for row in rows],
            strata=[row["length"] for row in rows],
            n_resamples=N_RESAMPLES,
            seed=derived_seed(seed, "association", name),
        )
        found[name] = {
            "cramers_v": result.cramers_v.estimate,
            "ci_high": result.cramers_v.ci_high,
            "information_nats": result.information.estimate,
            "p_value": result.information.p_value,
        }
    frequency = eta_squared(
        [_mean_band(row["words"], lexicon) for row in lists],
        [row["count"] / row["length"] > 0.5 for row in lists],
        n_resamples=N_RESAMPLES,
        seed=derived_seed(seed, "association", "frequency"),
    )
    found["word frequency"] = {"eta_squared": frequency.estimate, "p_value": frequency.p_value}
    return found


def _pair_balance(pairs: Sequence[Row], lexicon: Lexicon, limit: float) -> list[dict[str, Any]]:
    minimal = [row for row in pairs if row["kind"] == "minimal"]
    return [
        {"covariate": row.covariate, "smd": abs(row.smd), "passed": row.passed}
        for row in (swapped_word_balance(minimal, lexicon, limit) if minimal else ())
        if np.isfinite(row.smd)
    ]


def _mean_band(words: Sequence[str], lexicon: Lexicon) -> float:
    return float(np.mean([BAND_RANK.get(lexicon.frequency_band(word), 1) for word in words]))


def _diversity(lists: Sequence[Row]) -> dict[str, Any]:
    found = {}
    for source in sorted({row["source"] for row in lists}):
        words = [word for row in lists if row["source"] == source for word in row["words"]]
        measured = diversity(words, n_tokens=min(DIVERSITY_TOKENS, len(words)))
        found[source] = {
            "n_tokens": measured.n_tokens,
            "distinct_1": measured.distinct_1,
            "distinct_2": measured.distinct_2,
            "entropy_bits": measured.entropy_bits,
            "mtld": measured.mtld,
        }
    return found


def _validity(examples: Sequence[Row], reasons: Sequence[str], factor: str) -> list[dict[str, Any]]:
    """Share of right prompts per level, with Wilson's interval."""
    right: Counter[Any] = Counter()
    total: Counter[Any] = Counter()
    for row, reason in zip(examples, reasons):
        total[row[factor]] += 1
        right[row[factor]] += not reason
    out = []
    for level in sorted(total):
        low, high = wilson(right[level], total[level])
        out.append(
            {"level": level, "n": total[level], "valid": right[level] / total[level],
             "ci_low": low, "ci_high": high}
        )  # fmt: skip
    return out


def _verdict_rows(
    rows: Sequence[Row], reasons: Sequence[str], key: str, table: str
) -> list[dict[str, Any]]:
    return [
        {"item_id": row[key], "table": table, "valid": not reason, "reason": reason}
        for row, reason in zip(rows, reasons)
    ]


def _share(reasons: Sequence[str]) -> float:
    return sum(bool(reason) for reason in reasons) / max(len(reasons), 1)


def _gate(name: str, value: float, limit: float, exact: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "value": float(value),
        "threshold": float(limit),
        "passed": bool(exact or value <= limit),
    }


def _failure_table(failed: Sequence[Mapping[str, Any]]) -> str:
    width = max(len(gate["name"]) for gate in failed)
    return "\n".join(
        f"  {gate['name']:<{width}}  {gate['value']:.4f}  allowed {gate['threshold']:.4f}"
        for gate in failed
    )
