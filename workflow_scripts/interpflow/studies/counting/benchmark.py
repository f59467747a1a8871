"""How well a model counts: scores with floors and intervals, kinds of error, and the gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.config.counting import CountingBenchmark
from interpflow.config.identity import derived_seed
from interpflow.stats.accuracy import accuracy, baselines
from interpflow.stats.calibration import calibration, proper_scores
from interpflow.stats.error_size import answer_slope, confusion, error_size
from interpflow.stats.extraction_reliability import readout_agreement
from interpflow.stats.paired import against_constant, paired_difference
from interpflow.stats.record import CONTAMINATED, READOUT_DISAGREES, Estimate, flagged_row
from interpflow.stats.response import input_sensitivity, marginal_divergence
from interpflow.stats.strata import stratified_accuracy
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

FACTORS = ("category", "length", "count", "template_id")
SIGNIFICANT = 0.05  # of being above the floors
# A model that gets nearly all lists of a published set right may have seen it in training; lists
# drawn anew by seed cannot have been seen, so this flag concerns foreign data only.
GENERATED_SOURCES = frozenset({"systematic", "llm"})


@dataclass(frozen=True)
class Readout:
    """One way of reading a model's answers: counts [items], NaN where none could be read."""

    name: str
    answers: np.ndarray


def benchmark(
    name: str,
    answers_path: Path | str,
    settings: CountingBenchmark,
    seed: int,
    *,
    level: float,
    contaminated: str = "",
    estimates_path: Path | str,
    confusion_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `estimates` and `confusion` and the document `counting_benchmark`.

    `contaminated`: why the model should not be measured on these data, where it made or validated
    some of them; every row then carries the flag.
    """
    rows = read_rows(answers_path, "counting_answers")
    readouts = read_answers(rows)
    estimates: list[dict[str, Any]] = []
    for readout in readouts:
        estimates += _readout_rows(name, rows, readout, settings, seed, level)
    estimates += _scored_rows(name, rows, settings, seed, level)
    if contaminated:
        estimates = [flagged_row(row, CONTAMINATED) for row in estimates]
    write_table(estimates_path, "estimates", estimates, provenance)
    write_table(confusion_path, "confusion", _confusion_rows(name, rows, readouts), provenance)
    document = verdict(name, rows, readouts, settings, seed, level)
    if contaminated:
        document["contamination"] = {**document["contamination"], "flag": True, "why": contaminated}
        document["sentence"] += f" CONTAMINATED: {contaminated}."
    write_document(document_path, "counting_benchmark", document, provenance)
    print(document["sentence"])


def read_answers(rows: Sequence[Mapping[str, Any]]) -> tuple[Readout, ...]:
    """Scored (argmax of answer log-probability), generated strict, and generated lenient."""

    def column(key: str) -> np.ndarray:
        return np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)

    return (
        Readout("scored", column("scored_count")),
        Readout("generated", column("strict_count")),
        Readout("generated_lenient", column("lenient_count")),
    )


def verdict(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    readouts: Sequence[Readout],
    settings: CountingBenchmark,
    seed: int,
    level: float,
) -> dict[str, Any]:
    """The headline numbers, the gates, and whether interventions make sense."""
    scored = readouts[0]
    truth, families = _truth(rows), _families(rows)
    correct = scored.answers == truth
    score = accuracy(correct, clusters=families, level=level).strict
    floors = baselines(truth, scored.answers, _column(rows, "length"), n_allowed=_n_allowed(rows))
    gain = against_constant(correct, truth, clusters=families, level=level, seed=seed)
    above_length = paired_difference(
        correct, _length_only(rows) == truth, clusters=families, level=level, seed=seed,
        quantity="accuracy above the length-only answer",
    )  # fmt: skip
    sensitivity = _sensitivity(rows, scored, settings, seed)
    generated = readouts[1].answers
    agreement = readout_agreement(
        generated,
        scored.answers,
        truth,
        categories=list(range(_n_allowed(rows))),
        clusters=families,
    )
    parse_rate = float(np.isfinite(generated).mean())
    refused = "" if sensitivity.gate.passed else (
        "the answers do not depend on the input beyond list length and category "
        f"(permutation p = {sensitivity.information.p_value:.3g}, "
        f"gate at {settings.gate_level:g}): there is no effect to mediate"
    )  # fmt: skip
    floor = max(floors.best_constant, floors.length_only, floors.uniform)
    at_floor = not all(
        found.p_value < SIGNIFICANT and found.estimate > 0 for found in (gain, above_length)
    )
    return {
        "model": name,
        "n_prompts": len(rows),
        "n_base_lists": len({row["family_id"] for row in rows}),
        "accuracy": score.to_row(),
        "above_best_constant": gain.to_row(),
        "above_length_only": above_length.to_row(),
        "floors": {
            "uniform": floors.uniform,
            "best_constant": floors.best_constant,
            "length_only": floors.length_only,
            "own_marginal": floors.own_marginal,
        },
        "ceiling": 1.0,
        "at_floor": at_floor,
        "parse_rate": parse_rate,
        "readouts": {
            "agreement": agreement.agreement.to_row(),
            "accuracy_difference": agreement.accuracy_difference.to_row(),
            "disagrees": agreement.disagrees,
        },
        "gates": [
            sensitivity.gate.to_row(),
            {
                "name": "parse_rate",
                "passed": parse_rate >= settings.min_parse_rate,
                "value": parse_rate,
                "threshold": settings.min_parse_rate,
                "reason": "share of greedy answers that parse; where it fails only the scored "
                "answers are used",
            },
        ],
        "mediation_refused": refused,
        "error_kinds": _error_kinds(rows, scored),
        "contamination": _contamination(rows),
        "sentence": _sentence(name, score, floor, at_floor, refused),
    }


def _sentence(name: str, score: Estimate, floor: float, at_floor: bool, refused: str) -> str:
    place = "not above" if at_floor else "above"
    text = (
        f"{name} counts {score.estimate:.1%} of lists right "
        f"({score.ci_level:.0%} interval {score.ci_low:.1%} to {score.ci_high:.1%}), {place} the "
        f"best constant and the best length-only answer; the highest floor is {floor:.1%}."
    )
    return f"{text} Interventions are refused: {refused}." if refused else text


def _readout_rows(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    readout: Readout,
    settings: CountingBenchmark,
    seed: int,
    level: float,
) -> Iterable[dict[str, Any]]:
    truth, families = _truth(rows), _families(rows)
    parsed = np.isfinite(readout.answers)
    correct = readout.answers == truth
    found = accuracy(correct, parsed, clusters=families, level=level)
    size = error_size(
        truth, readout.answers, clusters=families, level=level,
        n_resamples=min(settings.n_permutations, 1999), seed=derived_seed(seed, name, "error size"),
    )  # fmt: skip
    marginal = marginal_divergence(
        truth, readout.answers, categories=list(range(_n_allowed(rows))),
        n_resamples=settings.n_permutations, seed=derived_seed(seed, name, "marginal"),
    )  # fmt: skip
    overall = [
        found.strict.renamed("accuracy"),
        found.conditional.renamed("accuracy given a parsed answer"),
        found.parse_rate.renamed("parse rate"),
        against_constant(correct, truth, clusters=families, level=level).renamed(
            "accuracy above the best constant"
        ),
        size.mae.renamed("mean absolute error"),
        size.bias.renamed("bias"),
        size.within_one.renamed("within one"),
        answer_slope(truth, readout.answers, clusters=families, level=level).renamed(
            "slope of answer on truth"
        ),
        marginal.tv.renamed("total variation of answers from truth"),
        marginal.jsd.renamed("Jensen-Shannon divergence of answers from truth"),
    ]
    rows_out = [_row(name, readout.name, "all", "all", estimate) for estimate in overall]
    for factor in FACTORS:
        strata = stratified_accuracy(
            correct, _column(rows, factor), factor=factor, clusters=families, level=level
        )
        rows_out.append(_row(name, readout.name, factor, "all", strata.overall))
        for stratum in strata.strata:
            rate = Estimate(
                quantity="accuracy",
                estimate=stratum.rate,
                ci_low=stratum.ci_low,
                ci_high=stratum.ci_high,
                ci_level=level,
                p_value=stratum.contrast.p_value,
                p_adjusted=stratum.contrast.p_adjusted,
                test=stratum.contrast.test,
                n_units=stratum.n,
                family=stratum.contrast.family,
                flags=stratum.flags,
            )
            shrunk = Estimate(
                quantity="accuracy (empirical Bayes)",
                estimate=stratum.shrunk,
                ci_low=stratum.shrunk_low,
                ci_high=stratum.shrunk_high,
                ci_level=level,
                n_units=stratum.n,
            )
            rows_out += [
                _row(name, readout.name, factor, stratum.name, rate),
                _row(name, readout.name, factor, stratum.name, shrunk),
            ]
    return rows_out


def _scored_rows(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: CountingBenchmark,
    seed: int,
    level: float,
) -> list[dict[str, Any]]:
    """What only the scored answers have: confidence, its calibration, and the input gate."""
    truth, families = _truth(rows), _families(rows)
    scored, generated, _ = read_answers(rows)
    log_probs = np.array([row["log_probs"] for row in rows])
    shares = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    brier, log_loss = proper_scores(shares, truth, clusters=families)
    fit = calibration(
        _column(rows, "confidence"), scored.answers == truth,
        captured_mass=_column(rows, "captured_mass"), clusters=families, level=level,
        n_resamples=min(settings.n_permutations, 1999), seed=derived_seed(seed, name, "ece"),
    )  # fmt: skip
    sensitivity = _sensitivity(rows, scored, settings, seed)
    agreement = readout_agreement(
        generated.answers, scored.answers, truth, categories=list(range(_n_allowed(rows))),
        clusters=families,
    )  # fmt: skip
    difference = agreement.accuracy_difference.renamed("accuracy: generated − scored")
    if agreement.disagrees:
        difference = difference.with_flags(READOUT_DISAGREES)
    estimates = [
        brier.renamed("Brier score"),
        log_loss.renamed("log loss"),
        fit.brier_binary.renamed("Brier score of the chosen answer"),
        fit.signed_gap.renamed("confidence − accuracy"),
        fit.ece.renamed("expected calibration error"),
        sensitivity.information.renamed("information of answer about truth"),
        agreement.agreement.renamed("agreement of generated and scored"),
        difference,
    ]
    rows_out = [_row(name, "scored", "all", "all", estimate) for estimate in estimates]
    for i, part in enumerate(fit.curve):
        point = Estimate(quantity="reliability", estimate=part.accuracy, n_units=part.n)
        rows_out.append(_row(name, "scored", "confidence", f"{i}:{part.confidence:.6f}", point))
    return rows_out


def _sensitivity(
    rows: Sequence[Mapping[str, Any]], scored: Readout, settings: CountingBenchmark, seed: int
) -> Any:
    # One prompt per base list: several wordings of a list are not independent.
    first: dict[str, int] = {}
    for i, row in enumerate(rows):
        first.setdefault(row["family_id"], i)
    kept = np.array(sorted(first.values()))
    strata = np.array([f"{row['category']}/{row['length']}" for row in rows])
    return input_sensitivity(
        _truth(rows)[kept], scored.answers[kept], strata=strata[kept],
        alpha=settings.gate_level, n_resamples=settings.n_permutations,
        seed=derived_seed(seed, "input sensitivity"),
    )  # fmt: skip


def _error_kinds(rows: Sequence[Mapping[str, Any]], scored: Readout) -> dict[str, int]:
    """Wrong answers by what they look like; where several kinds give the same number, all of
    them are named."""
    kinds: Counter[str] = Counter()
    for row, answer in zip(rows, scored.answers):
        if answer == row["count"]:
            continue
        looks_like = {
            "off by one": abs(answer - row["count"]) == 1,
            "counts all words": answer == row["length"],
            "answers zero": answer == 0,
            "number of another category": answer == row["largest_other_count"] != 0,
            "counts the words outside the category": answer == row["length"] - row["count"],
        }
        kinds[" or ".join(kind for kind, fits in looks_like.items() if fits) or "other"] += 1
    return dict(kinds.most_common())


def _length_only(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The most frequent truth of each list length: the best answer that ignores the words."""
    by_length: dict[int, Counter[int]] = {}
    for row in rows:
        by_length.setdefault(row["length"], Counter())[row["count"]] += 1
    best = {length: min(c, key=lambda k: (-c[k], k)) for length, c in by_length.items()}
    return np.array([best[row["length"]] for row in rows])


def _contamination(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sources = sorted({row["source"] for row in rows})
    return {
        "flag": any(source not in GENERATED_SOURCES for source in sources),
        "sources": sources,
        "why": "lists drawn anew from a seed cannot stand in a training corpus; lists from files "
        "or published sets can",
    }


def _confusion_rows(
    name: str, rows: Sequence[Mapping[str, Any]], readouts: Sequence[Readout]
) -> list[dict[str, Any]]:
    truth = _truth(rows)
    out = []
    for readout in readouts:
        table = confusion(truth, readout.answers, maximum=_n_allowed(rows) - 1)
        out += [
            {
                "model": name,
                "readout": readout.name,
                "truth": int(table.row_labels[i]),
                "response": table.column_labels[j],
                "n": int(table.counts[i, j]),
            }
            for i in range(len(table.row_labels))
            for j in range(len(table.column_labels))
        ]
    return out


def _row(name: str, analysis: str, factor: str, level: str, estimate: Estimate) -> dict[str, Any]:
    return {
        "study": "counting",
        "model": name,
        "analysis": analysis,
        "factor": factor,
        "level": level,
        **estimate.to_row(),
    }


def _truth(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([row["count"] for row in rows])


def _families(rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """Base lists as clusters; None when every prompt has a base list of its own."""
    families = np.array([row["family_id"] for row in rows])
    return families if len(set(families)) < len(families) else None


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows])


def _n_allowed(rows: Sequence[Mapping[str, Any]]) -> int:
    return len(rows[0]["log_probs"])
