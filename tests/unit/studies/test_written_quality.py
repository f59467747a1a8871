"""Quality of written lists: words used again and again, words that nobody could judge."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from interpflow.studies.counting.written_quality import disagreements, quality

GOLD = 100


def word_row(word: str, verdict: str, *, known: bool = False, **changes: Any) -> dict[str, Any]:
    return {
        "round": 1,
        "category": "c",
        "word": word,
        "lexicon": verdict if known else None,
        "judges": [] if known else ["one"],
        "votes": [] if known else [verdict],
        "verdict": verdict,
        "decided_by": "lexicon" if known else "validator",
        "is_gold": False,
    } | changes


def list_row(number: int, labels: dict[str, bool]) -> dict[str, Any]:
    return {"category": "c", "list_id": str(number), "round": 1, "asked_length": len(labels),
            "asked_count": sum(labels.values()), "generator": "g", "words": list(labels),
            "is_member": list(labels.values())}  # fmt: skip


def written(
    rng: random.Random,
    uses: Callable[[int], int],
    *,
    by_word: bool,
    wrong: float = 0.08,
    unclear: float = 0.0,
    n_words: int = 300,
) -> tuple[float, list[dict[str, Any]], list[dict[str, Any]]]:
    """The share of labels that are right, lists, and verdicts on words; every second one open."""

    def vote(truth: bool) -> str:
        right = rng.random() < (0.95 if truth else 0.93)
        return "yes" if truth == right else "no"

    truth = {f"w{i}": rng.random() < 0.4 for i in range(n_words)}
    slips = {word: rng.random() < wrong for word in truth}
    used = [word for i, word in enumerate(truth) for _ in range(uses(i))]
    right = 0
    lists = []
    for number, word in enumerate(used):
        slip = slips[word] if by_word else rng.random() < wrong
        right += not slip
        lists.append(list_row(number, {word: truth[word] != slip}))
    words = []
    for i, (word, is_member) in enumerate(truth.items()):
        if i % 2:
            words.append(word_row(word, "yes" if is_member else "no", known=True))
        else:
            verdict = "unclear" if rng.random() < unclear else vote(is_member)
            words.append(word_row(word, verdict))
    for is_member in (True, False):
        said = "yes" if is_member else "no"
        words += [
            word_row(f"g{said}{i}", said, known=True, votes=[vote(is_member)], judges=["one"],
                     is_gold=True)
            for i in range(GOLD)
        ]  # fmt: skip
    return right / len(used), lists, words


def labels_of(
    lists: list[dict[str, Any]], words: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {row["quantity"]: row for row in quality(lists, words, [], 0)["labels"]}


@pytest.mark.parametrize("by_word", [True, False])
@pytest.mark.parametrize(
    "uses", [lambda i: 12, lambda i: 1 + 40 // (1 + i // 6)], ids=["even", "skewed"]
)
def test_labels_given_again_and_again_are_counted_as_often(
    uses: Callable[[int], int], by_word: bool
) -> None:
    rng = random.Random(1)
    n_runs, covered, known, total = 100, 0, 0, 0.0
    for _ in range(n_runs):
        share, lists, words = written(rng, uses, by_word=by_word)
        found = labels_of(lists, words)
        in_all = found["label accuracy, all words, corrected"]
        # Where slips belong to words, the words are the sample; else the labels are.
        true = 0.92 if by_word else share
        covered += in_all["ci_low"] <= true <= in_all["ci_high"]
        exact = found["label accuracy, words in the lexicon"]
        known += exact["ci_low"] <= true <= exact["ci_high"]
        total += in_all["estimate"]
    assert total / n_runs == pytest.approx(0.92, abs=0.015)
    assert covered / n_runs >= 0.93
    assert known / n_runs >= 0.9


def test_words_that_no_validator_can_judge_do_not_count_as_wrong() -> None:
    rng = random.Random(2)
    n_runs, total, n_dropped = 30, 0.0, 0
    for _ in range(n_runs):
        _, lists, words = written(rng, lambda i: 1, by_word=True, unclear=0.3)
        found = labels_of(lists, words)["label accuracy, other words, corrected"]
        total += found["estimate"]
        n_dropped += found["n_dropped"]
    assert total / n_runs == pytest.approx(0.92, abs=0.02)
    assert n_dropped / n_runs == pytest.approx(0.3 * 150, rel=0.15)


def test_a_validator_that_knows_only_the_lexicon_measures_nothing_else() -> None:
    lists = [list_row(i, {f"w{i}": True}) for i in range(20)]
    gold = [word_row(f"g{said}{i}", said, known=True, votes=[said], is_gold=True)
            for said in ("yes", "no") for i in range(20)]  # fmt: skip
    found = labels_of(lists, [word_row(f"w{i}", "unclear") for i in range(20)] + gold)
    for quantity in ("other words, as judged", "other words, corrected", "all words, corrected"):
        assert found[f"label accuracy, {quantity}"]["estimate"] is None
        assert found[f"label accuracy, {quantity}"]["flags"]


def test_a_word_judged_in_several_rounds_is_one_word() -> None:
    lists = [list_row(i, {"kiwi": True, "oak": i < 2}) for i in range(4)]
    words = [
        word_row(word, verdict, round=number, votes=votes, judges=["a", "b"])
        for number in (1, 2, 3)
        for word, verdict, votes in (
            ("kiwi", "unclear", ["yes", "no"]), ("oak", "no", ["no", "no"]),
        )
    ]  # fmt: skip
    shown = disagreements(lists, words)
    assert [(row["word"], row["generator_label"], row["n_lists"]) for row in shown] == [
        ("kiwi", True, 4), ("oak", True, 2),
    ]  # fmt: skip
    pairs = quality(lists, words, [], 0)["agreement"]
    assert [row["between"] for row in pairs] == ["a against b", "generator against the verdicts"]
    assert [sum(map(sum, row["table"])) for row in pairs] == [2, 1]


def test_agreement_takes_a_word_once_by_its_first_label() -> None:
    # Slips by chance: with enough uses every word gets a wrong label somewhere.
    _, lists, words = written(random.Random(4), lambda i: 30, by_word=False, n_words=200)
    pair = quality(lists, words, [], 0)["agreement"][-1]
    found = {row["quantity"]: row for row in pair["estimates"]}
    assert found["agreement"]["n_units"] == 200
    assert found["agreement"]["estimate"] > 0.8


def expected_wrong(member: bool, wrong: float = 0.08) -> tuple[float, float]:
    """Share of open labels of a kind that pass, and how many of those are wrong."""
    share, passes, passes_wrong = (0.4, 0.95, 0.07) if member else (0.6, 0.93, 0.05)
    right, false = share * (1 - wrong) * passes, (1 - share) * wrong * passes_wrong
    return right + false, false / (right + false)


@pytest.mark.parametrize("by_word", [False, True])
def test_wrong_labels_that_the_validators_pass_are_estimated(by_word: bool) -> None:
    rng = random.Random(5)
    n_runs, covered, sizes = 120, 0, []
    kinds = [expected_wrong(True), expected_wrong(False)]
    # Labels of the other half of the words are checked by the lexicon: 92 % right, all used.
    true_rate = sum(a * b for a, b in kinds) / (sum(a for a, _ in kinds) + 0.92)
    for _ in range(n_runs):
        _, lists, words = written(rng, lambda _: 5, by_word=by_word)
        said = {row["word"]: row["verdict"] == "yes" for row in words if not row["is_gold"]}
        verdicts = [
            {"list_id": row["list_id"], "category": "c", "round": 1, "labels_right": right,
             "accepted": right, "reason": "", "entry": 0}
            for row in lists
            for right in [said[row["words"][0]] == row["is_member"][0]]
        ]  # fmt: skip
        found = quality(lists, words, verdicts, 0)["used_labels"]
        covered += found["ci_low"] <= true_rate <= found["ci_high"]
        sizes.append(found["ci_high"] - found["ci_low"])
    assert covered / n_runs >= 0.92
    assert sum(sizes) / n_runs < 0.02
