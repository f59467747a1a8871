"""The proposer of hypotheses: what distinguishes two groups of texts, by statistics.

Words and pairs of words by the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi
& Quinn 2008, "Fightin' Words", Political Analysis 16(4), eq. 15-22); features of form by the
difference of means in units of its standard deviation over all ways to split the texts in two
groups, which stays finite when a feature separates them.
Words of one text are not independent: one long text about trains makes "train" frequent. So the
variance of a log-odds is the larger of the paper's and of the one that takes the texts as units:
their spread around the rate of both groups together, by the delta method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interpflow.errors import UserError
from interpflow.llm.offline.items import field
from interpflow.llm.offline.text_features import FORM_FEATURES, TextCounts, count_text

if TYPE_CHECKING:
    import numpy as np

# Weight of the prior in words, as a share of the smaller group's: rare words are pulled to no
# difference, frequent ones hardly.
PRIOR_SHARE = 0.05
# A z-score needs some texts on which the term stands.
MIN_TEXTS_WITH_TERM = 5
MIN_TEXTS = 4
DEFAULT_MAX_HYPOTHESES = 10
CONTRAST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "hypotheses": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "feature": {"type": "string"},
                    "direction": {"enum": ["a", "b"]},
                    "z": {"type": "number"},
                    "text": {"type": "string"},
                },
                "required": ["feature", "direction", "z", "text"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["hypotheses"],
    "additionalProperties": False,
}


def contrast(item: Mapping[str, Any], sample: int) -> dict[str, Any]:
    """Hypotheses on how the texts item["a"] differ from item["b"], the strongest first.

    item["background"]: texts for the prior (else both groups); item["max_hypotheses"]. A
    hypothesis is {feature, direction: the group that has more of it, z, text}; the feature is
    "word: train", "pair: steam train" or "form: questions". Nothing is left out for being weak:
    z says how sure it is, before any correction for the number of features.
    Raises UserError where a group has fewer than 4 texts.
    """
    groups = [[count_text(str(text)) for text in field(item, side)] for side in ("a", "b")]
    if min(map(len, groups)) < MIN_TEXTS:
        raise UserError(
            f"a contrast needs at least {MIN_TEXTS} texts in each group, not "
            f"{len(groups[0])} and {len(groups[1])}",
            where="Ask.item",
        )
    background = [count_text(str(text)) for text in item.get("background", ())]
    found = [
        *contrast_terms(groups[0], groups[1], background or None),
        *contrast_form(groups[0], groups[1]),
    ]
    found.sort(key=lambda each: (-abs(each["z"]), each["feature"]))
    return {"hypotheses": found[: int(item.get("max_hypotheses", DEFAULT_MAX_HYPOTHESES))]}


def contrast_terms(
    a: Sequence[TextCounts], b: Sequence[TextCounts], background: Sequence[TextCounts] | None = None
) -> list[dict[str, Any]]:
    """Hypotheses on every word and pair of words that stands in at least 5 texts."""
    import numpy as np

    n_texts = Counter(term for text in (*a, *b) for term in text.terms)
    terms = sorted(term for term, n in n_texts.items() if n >= MIN_TEXTS_WITH_TERM)
    if not terms or not any(t.n_words for t in a) or not any(t.n_words for t in b):
        return []
    source = background if background is not None else [*a, *b]
    known = Counter[str]()
    for text in source:
        known.update(text.terms)
    n_known = max(sum(text.n_words for text in source), 1)
    sums = [_sums(group, terms) for group in (a, b)]
    strength = PRIOR_SHARE * min(side.n_words for side in sums)
    # Half a count keeps terms that the background lacks possible.
    prior = np.array([known[term] + 0.5 for term in terms])
    prior *= strength / (n_known + 0.5 * len(terms))
    rate = (sums[0].y + sums[1].y) / (sums[0].n_words + sums[1].n_words)
    spread = (sums[0].squares(rate) + sums[1].squares(rate)) / (len(a) + len(b) - 1)
    sides = [_log_odds(side, prior, strength, rate, spread) for side in sums]
    z = (sides[0][0] - sides[1][0]) / np.sqrt(sides[0][1] + sides[1][1])
    rates = [1000 * side.y / side.n_words for side in sums]
    return [
        _term_hypothesis(term, float(z[i]), float(rates[0][i]), float(rates[1][i]))
        for i, term in enumerate(terms)
    ]


def contrast_form(a: Sequence[TextCounts], b: Sequence[TextCounts]) -> list[dict[str, Any]]:
    """Hypotheses on the features of form; one that never varies is left out."""
    import numpy as np

    found = []
    for name, description in FORM_FEATURES.items():
        x, y = (np.array([text.form[name] for text in group]) for group in (a, b))
        spread = np.concatenate([x, y]).var(ddof=1) * (1 / len(x) + 1 / len(y))
        if spread == 0:
            continue
        z = float((x.mean() - y.mean()) / np.sqrt(spread))
        more, less = ("first", "second") if z >= 0 else ("second", "first")
        values = sorted((float(x.mean()), float(y.mean())), reverse=True)
        found.append(
            {
                "feature": f"form: {name}",
                "direction": "a" if z >= 0 else "b",
                "z": round(z, 4),
                "text": f"Texts of the {more} group {description} than those of the {less}: "
                f"{values[0]:.3g} against {values[1]:.3g} on average.",
            }
        )
    return found


@dataclass(frozen=True)
class _Sums:
    """Over the texts of a group: occurrences y of each term, y², and y times the text's words n."""

    y: np.ndarray  # float64 [term], like the next two
    yy: np.ndarray
    yn: np.ndarray
    nn: float
    n_words: float
    n_texts: int

    def squares(self, rate: np.ndarray) -> np.ndarray:
        """Sum over texts of (y - rate n)², float64 [term]."""
        return (self.yy - 2 * rate * self.yn + rate**2 * self.nn).clip(min=0)


def _sums(group: Sequence[TextCounts], terms: Sequence[str]) -> _Sums:
    import numpy as np

    place = {term: i for i, term in enumerate(terms)}
    y, yy, yn = np.zeros((3, len(terms)))
    for text in group:
        for term, n in text.terms.items():
            at = place.get(term)
            if at is not None:
                y[at] += n
                yy[at] += n * n
                yn[at] += n * text.n_words
    sizes = [float(text.n_words) for text in group]
    return _Sums(y, yy, yn, sum(n * n for n in sizes), sum(sizes), len(group))


def _log_odds(
    side: _Sums, prior: np.ndarray, strength: float, rate: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(log-odds, its variance), float64 [term].

    The variance is the paper's approximation 1/(y + prior), or where it is larger that of a sum of
    as many texts with the `spread` of one, relative to what the common `rate` lets expect.
    """
    import numpy as np

    smoothed = side.y + prior
    rest = np.maximum(side.n_words + strength - smoothed, 0.5)
    expected = rate * side.n_words + prior
    return (
        np.log(smoothed / rest),
        np.maximum(1 / smoothed, side.n_texts * spread / expected**2),
    )


def _term_hypothesis(term: str, z: float, rate_a: float, rate_b: float) -> dict[str, Any]:
    kind = "pair" if " " in term else "word"
    (more, high), (less, low) = ("first", rate_a), ("second", rate_b)
    if z < 0:
        (more, high), (less, low) = (less, low), (more, high)
    return {
        "feature": f"{kind}: {term}",
        "direction": "a" if z >= 0 else "b",
        "z": round(z, 4),
        "text": f'Texts of the {more} group use "{term}" more often than those of the {less}: '
        f"{high:.3g} against {low:.3g} times in 1000 words.",
    }
