"""How good is the written data? Labels of the generator, verdicts of the validators, corrected."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from interpflow.config.identity import derived_seed
from interpflow.stats.clustered_share import clustered_proportion, clustered_share
from interpflow.stats.intervals import proportion
from interpflow.stats.misclassification import rogan_gladen, weighted_sum, wrong_positives
from interpflow.stats.rater_agreement import RaterAgreement, rater_agreement
from interpflow.stats.record import Estimate
from interpflow.studies.counting.written_state import Row, read_rounds
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.counting.membership import MEMBERSHIPS, decide

Question = tuple[str, str]  # category, word
Label = tuple[str, str, bool]  # category, word, and what the generator says of it


def written_quality(
    lists_paths: Sequence[Path | str],
    words_paths: Sequence[Path | str],
    verdicts_paths: Sequence[Path | str],
    *,
    seed: int,
    document_path: Path | str,
    disagreements_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the document `counting_written_quality` and the table `counting_disagreements`."""
    lists = read_rounds(lists_paths, "counting_written_lists")
    words = read_rounds(words_paths, "counting_word_verdicts")
    verdicts = read_rounds(verdicts_paths, "counting_list_verdicts")
    document = quality(lists, words, verdicts, seed)
    write_document(document_path, "counting_written_quality", document, provenance)
    write_table(
        disagreements_path, "counting_disagreements", disagreements(lists, words), provenance
    )


def quality(
    lists: Sequence[Row], words: Sequence[Row], verdicts: Sequence[Row], seed: int
) -> dict[str, Any]:
    """All measures of the written lists, as the document holds them."""
    gold = [row for row in words if row["is_gold"]]
    judged = _judged_once(words)
    labels = label_uses(lists)
    return {
        "rounds": _rounds(lists, verdicts),
        "labels": [estimate.to_row() for estimate in label_accuracy(labels, judged, gold)],
        "used_labels": wrong_labels_in_use(labels, _used(lists, verdicts), judged, gold,
                                           seed).to_row(),
        "validators": _validators(gold),
        "agreement": _agreements(judged, gold, labels),
        "lists_right_by": {
            name: _shares(verdicts, key)
            for name, key in _strata(lists).items()
        },
    }  # fmt: skip


def label_uses(lists: Sequence[Row]) -> Counter[Label]:
    """Every label that the generator gave, with the number of lists that use it."""
    return Counter(
        (row["category"], word, is_member)
        for row in lists
        for word, is_member in dict(zip(row["words"], row["is_member"])).items()
    )


def label_accuracy(
    labels: Mapping[Label, int], judged: Sequence[Row], gold: Sequence[Row]
) -> list[Estimate]:
    """Share of the generator's labels that are right: known, apparent, corrected, and in all.

    A label counts as often as it was given; the words are the clusters, as a word's truth and the
    verdict on it are the same in every list. Words of unclear membership are dropped: nobody can
    say whether their labels are right.

    Of words that the lexicon holds, the truth is known. Of the others the validators' verdicts are
    corrected by what the validators get right on words of known membership, members and others
    apart (Rogan & Gladen 1978): this takes it that they judge the words that the lexicon has not
    as well as those it has. Both parts rest on the same known words; what raises one of them lowers
    the other, so that the interval of their sum is rather wide.
    """
    verdict_of = {(row["category"], row["word"]): row for row in judged}
    known: dict[Question, dict[bool, int]] = defaultdict(lambda: {True: 0, False: 0})
    for (category, word, is_member), uses in labels.items():
        row = verdict_of.get((category, word))
        if row and row["decided_by"] == "lexicon" and row["verdict"] != "unclear":
            known[category, word][(row["verdict"] == "yes") == is_member] += uses
    others = _open_labels(labels, judged)
    exact = clustered_proportion(
        [uses[True] for uses in known.values()], [sum(uses.values()) for uses in known.values()],
        quantity="label accuracy, words in the lexicon",
    )  # fmt: skip
    parts = [
        _corrected(others[True], gold, "yes", "labels member, corrected"),
        _corrected(others[False], gold, "no", "labels non-member, corrected"),
    ]
    n_open = sum(part.n_units for part in parts)
    corrected = weighted_sum(
        parts,
        [part.n_units / n_open if n_open else 0 for part in parts],
        quantity="label accuracy, other words, corrected",
    )
    n = exact.n_units + n_open
    overall = weighted_sum(
        [exact, *parts],
        [part.n_units / n if n else 0 for part in (exact, *parts)],
        quantity="label accuracy, all words, corrected",
    )
    return [exact, _apparent(others), *parts, corrected, overall]


def wrong_labels_in_use(
    labels: Mapping[Label, int],
    used: Mapping[Label, int],
    judged: Sequence[Row],
    gold: Sequence[Row],
    seed: int,
) -> Estimate:
    """Share of wrong labels to be expected among those of the lists in use (`used`).

    Labels of words that the lexicon holds are right there. Of the others, the validators passed
    some wrong ones: as many as their errors on known words, and the share of wrong labels in what
    they were given, make likely. That share is of all words of a kind of label, as the validators
    saw no lists.
    """
    given, passed = _open_labels(labels, judged), _open_labels(used, judged)
    parts, sizes = [], []
    for is_member, positive in ((True, "yes"), (False, "no")):
        n_agreeing, n, known = _evidence(given[is_member], gold, positive)
        own_seed = derived_seed(seed, "wrong labels", positive)
        n_used = sum(uses for _, _, uses in passed[is_member])
        part = wrong_positives(n_agreeing, n, seed=own_seed, **known)
        parts.append(replace(part, n_units=n_used))
        sizes.append(n_used)
    n_known = sum(used.values()) - sum(sizes)
    total = n_known + sum(sizes)
    right = Estimate(quantity="known", estimate=0.0, ci_low=0.0, ci_high=0.0, n_units=n_known)
    return weighted_sum(
        [right, *parts],
        [size / total if total else 0 for size in (n_known, *sizes)],
        quantity="wrong labels to be expected in the lists in use",
    )


def _open_labels(
    labels: Mapping[Label, int], judged: Sequence[Row]
) -> dict[bool, list[tuple[Question, str, int]]]:
    """By label: the words that the validators decided, with their verdict and the label's uses."""
    verdict_of = {
        (row["category"], row["word"]): row["verdict"]
        for row in judged
        if row["decided_by"] == "validator"
    }
    found: dict[bool, list[tuple[Question, str, int]]] = {True: [], False: []}
    for (category, word, is_member), uses in labels.items():
        if (category, word) in verdict_of:
            found[is_member].append(((category, word), verdict_of[category, word], uses))
    return found


def _used(lists: Sequence[Row], verdicts: Sequence[Row]) -> Counter[Label]:
    """Labels of the accepted lists, with the number of those lists that hold each."""
    accepted = {row["list_id"] for row in verdicts if row["accepted"]}
    return label_uses([row for row in lists if row["list_id"] in accepted])


def _apparent(others: Mapping[bool, Sequence[tuple[Question, str, int]]]) -> Estimate:
    """Share of labels that the verdicts say are right."""
    right: dict[Question, dict[bool, int]] = defaultdict(lambda: {True: 0, False: 0})
    n_dropped = 0
    for is_member, given in others.items():
        for word, verdict, uses in given:
            if verdict == "unclear":
                n_dropped += uses
            else:
                right[word][(verdict == "yes") == is_member] += uses
    return clustered_proportion(
        [uses[True] for uses in right.values()], [sum(uses.values()) for uses in right.values()],
        quantity="label accuracy, other words, as judged", n_dropped=n_dropped,
    )  # fmt: skip


def disagreements(lists: Sequence[Row], words: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of `counting_disagreements`: what a person should look at, the most used first."""
    uses = label_uses(lists)
    rows = []
    for row in [*_judged_once(words), *(row for row in words if row["is_gold"])]:
        given = {
            is_member: uses[row["category"], row["word"], is_member]
            for is_member in (True, False)
            if uses[row["category"], row["word"], is_member]
        }
        for is_member, n_lists in given.items():
            kind = _disagreement(row, is_member)
            if kind and not row["is_gold"]:
                rows.append(_shown(row, is_member, n_lists, kind))
        if row["is_gold"] and any(vote != row["lexicon"] for vote in row["votes"]):
            rows.append(_shown(row, None, 0, "validator against lexicon"))
    return sorted(rows, key=lambda r: (-r["n_lists"], r["kind"], r["category"], r["word"]))


def _judged_once(words: Sequence[Row]) -> list[Row]:
    """Words that were not gold; one that came in several rounds has one verdict, not several."""
    once = {(row["category"], row["word"]): row for row in words if not row["is_gold"]}
    return list(once.values())


def _disagreement(row: Row, is_member: bool) -> str:
    if len(set(row["votes"])) > 1:
        return "validators against each other"
    if row["verdict"] == "unclear":
        return "unclear"
    if (row["verdict"] == "yes") != is_member:
        return f"generator against {row['decided_by']}"
    return ""


def _shown(row: Row, is_member: bool | None, n_lists: int, kind: str) -> dict[str, Any]:
    shared = {key: row[key] for key in ("category", "word", "lexicon", "judges", "votes",
                                        "verdict")}  # fmt: skip
    return {**shared, "generator_label": is_member, "n_lists": n_lists, "kind": kind}


def _corrected(
    given: Sequence[tuple[Question, str, int]], gold: Sequence[Row], positive: str, quantity: str
) -> Estimate:
    """Share of labels whose words truly are what `positive` says, from the verdicts on them.

    Of words and gold that the validators did not leave open.
    """
    n_agreeing, n, known = _evidence(given, gold, positive)
    found = rogan_gladen(n_agreeing, n, **known, quantity=quantity)
    sizes = [uses for _, verdict, uses in given if verdict != "unclear"]
    return replace(
        found,
        n_units=sum(sizes),
        n_clusters=len(sizes),
        n_dropped=sum(uses for _, _, uses in given) - sum(sizes),
    )


def _evidence(
    given: Sequence[tuple[Question, str, int]], gold: Sequence[Row], positive: str
) -> tuple[float, float, dict[str, Any]]:
    """Verdicts that are what `positive` says, all verdicts, as of independent words, and what the
    validators got right on gold; what they left open is left out of both."""
    asked = [(row["lexicon"], decide(row["votes"])) for row in gold if row["votes"]]
    right = [vote == positive for truth, vote in asked if truth == positive and vote != "unclear"]
    wrong = [vote == positive for truth, vote in asked if truth != positive and vote != "unclear"]
    decided = [(verdict == positive, uses) for _, verdict, uses in given if verdict != "unclear"]
    share = clustered_share(
        [uses * agrees for agrees, uses in decided], [uses for _, uses in decided]
    )
    n = share.n_effective if share else 0.0
    known = {
        "true_positives": sum(right),
        "n_gold_positive": len(right),
        "true_negatives": len(wrong) - sum(wrong),
        "n_gold_negative": len(wrong),
    }
    return share.share * n if share else 0.0, n, known


def _validators(gold: Sequence[Row]) -> list[dict[str, Any]]:
    """Each validator alone on the words of known membership."""
    found = []
    asked = [row for row in gold if row["votes"]]
    for place, judge in enumerate(asked[0]["judges"] if asked else ()):
        for truth, quantity in (("yes", "sensitivity"), ("no", "specificity")):
            votes = [row["votes"][place] for row in asked if row["lexicon"] == truth]
            share = proportion(sum(vote == truth for vote in votes), len(votes), quantity=quantity)
            unclear = sum(vote == "unclear" for vote in votes)
            found.append({"validator": judge, "n_unclear": unclear, **share.to_row()})
    return found


def _agreements(
    judged: Sequence[Row], gold: Sequence[Row], labels: Mapping[Label, int]
) -> list[dict[str, Any]]:
    """Every two validators, and the generator's first label of a word against its verdict.

    A word counts once: labels of another list are no rating of another item.
    """
    found = []
    voted = [row for row in (*judged, *gold) if row["votes"]]
    names = voted[0]["judges"] if voted else []
    for a, b in combinations(range(len(names)), 2):
        pair = rater_agreement(
            [row["votes"][a] for row in voted], [row["votes"][b] for row in voted],
            classes=MEMBERSHIPS,
        )  # fmt: skip
        found.append(_agreement_row(f"{names[a]} against {names[b]}", pair))
    verdict_of = {(row["category"], row["word"]): row["verdict"] for row in judged}
    first_label: dict[Question, bool] = {}
    for category, word, is_member in labels:
        first_label.setdefault((category, word), is_member)
    both = [
        ("yes" if is_member else "no", verdict_of[question])
        for question, is_member in first_label.items()
        if verdict_of.get(question, "unclear") != "unclear"
    ]
    pair = rater_agreement([a for a, _ in both], [b for _, b in both], classes=("yes", "no"))
    found.append(_agreement_row("generator against the verdicts", pair))
    return found


def _agreement_row(between: str, found: RaterAgreement) -> dict[str, Any]:
    return {
        "between": between,
        "classes": list(found.classes),
        "table": found.table.tolist(),
        "estimates": [e.to_row() for e in (found.agreement, found.kappa, found.ac1)],
    }


def _rounds(lists: Sequence[Row], verdicts: Sequence[Row]) -> list[dict[str, Any]]:
    by_round: dict[int, list[Row]] = defaultdict(list)
    for row in verdicts:
        by_round[row["round"]].append(row)
    asked = Counter(row["round"] for row in lists)
    return [
        {
            "round": number,
            "n_asked": asked[number],
            "n_right": sum(row["labels_right"] for row in rows),
            "n_accepted": sum(row["accepted"] for row in rows),
            "reasons": dict(Counter(row["reason"] for row in rows if row["reason"])),
        }
        for number, rows in sorted(by_round.items())
    ]


def _strata(lists: Sequence[Row]) -> dict[str, Callable[[Row], Any]]:
    by_id = {row["list_id"]: row for row in lists}
    return {
        "count": lambda row: by_id[row["list_id"]]["asked_count"],
        "length": lambda row: by_id[row["list_id"]]["asked_length"],
        "category": lambda row: row["category"],
        "generator": lambda row: by_id[row["list_id"]]["generator"],
    }


def _shares(verdicts: Sequence[Row], key: Callable[[Row], Any]) -> list[dict[str, Any]]:
    """Share of lists whose labels are all right, by level of what was asked for."""
    levels: dict[Any, list[bool]] = defaultdict(list)
    for row in verdicts:
        levels[key(row)].append(row["labels_right"])
    return [
        {"level": level, **proportion(sum(found), len(found), quantity="lists right").to_row()}
        for level, found in sorted(levels.items())
    ]
