"""What is timed, as data: sweeps, activation dumps, answer scoring, skipped layers,
and the prompts they run on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.flops import SweepSize
from tests.benchmarks.shapes import SHAPES, Shape, word

PROMPT_SEED = 31
SITE_SEED = 17
# The first ids are special tokens; the answers are drawn from the end, the prompts from the rest.
FIRST_WORD = 1
N_ANSWER_WORDS = 100


@dataclass(frozen=True)
class SweepWork:
    """Patch every (layer, position), or every (layer, head) at the last position, of each pair.

    shared: leading tokens that the two prompts of a pair have in common; with `common` they are
    the same in all pairs too. The clean run's state is put into the corrupted run; the metric is
    logit(answer 0) - logit(answer 1) at the last position.
    """

    shape: Shape
    component: str = "resid_post"
    n_pairs: int = 8
    length: int = 32
    shared: int = 0
    common: bool = False

    def size(self) -> SweepSize:
        """The counts that its operations follow from."""
        return SweepSize(self.component, self.n_pairs, self.length, self.shared)

    def pairs(self) -> list[dict[str, Any]]:
        """Per pair: clean and corrupted ids, and the two answer ids."""
        rng = random.Random(PROMPT_SEED)
        last = self.shape.vocabulary - N_ANSWER_WORDS
        prefix = [rng.randrange(FIRST_WORD, last) for _ in range(self.shared)]
        pairs = []
        for _ in range(self.n_pairs):
            if not self.common:
                prefix = [rng.randrange(FIRST_WORD, last) for _ in range(self.shared)]
            clean = [rng.randrange(FIRST_WORD, last) for _ in range(self.length - self.shared)]
            # The next id at every place: the two prompts differ at all of them.
            other = [FIRST_WORD + (token + 1 - FIRST_WORD) % (last - FIRST_WORD) for token in clean]
            answers = tuple(rng.sample(range(last, self.shape.vocabulary), 2))
            pair = {"clean": prefix + clean, "corrupted": prefix + other, "answers": answers}
            pairs.append(pair)
        return pairs

    def sites(self) -> list[tuple[int, int]]:
        """(layer, position) or (layer, head), layer by layer."""
        width = self.shape.n_heads if self.component == "head_out" else self.length
        return [(layer, place) for layer in range(self.shape.n_layers) for place in range(width)]

    def sample(self, n: int) -> list[tuple[int, int]]:
        """A seeded random choice of n sites (all when there are fewer); smaller n is a part of
        larger n, so what one implementation ran another has a value for."""
        sites = self.sites()
        random.Random(SITE_SEED).shuffle(sites)
        return sites[:n]


@dataclass(frozen=True)
class DumpWork:
    """Write all hidden states (fp16), top-20 logits and the final query's attention to disk.

    queries: attention of so many further queries, spread over the prompt, and of every token what
    it is for (role, word, characters).
    """

    shape: Shape
    n_prompts: int = 96
    length: int = 64
    batch: int = 16
    top: int = 20
    queries: int = 0

    def prompts(self) -> list[list[int]]:
        """Token ids, all of one length."""
        rng = random.Random(PROMPT_SEED)
        top = self.shape.vocabulary
        return [
            [rng.randrange(FIRST_WORD, top) for _ in range(self.length)]
            for _ in range(self.n_prompts)
        ]


@dataclass(frozen=True)
class ScoringWork:
    """Log-probabilities of the same answers after each prompt.

    n_prompts of the stated total are run and the time is scaled; prompts have `shortest` to
    `longest` words after `shared` common ones.
    """

    shape: Shape
    total: int = 2000
    n_prompts: int = 2000
    n_answers: int = 10
    answer_tokens: int = 1
    shared: int = 0
    shortest: int = 16
    longest: int = 32
    batch: int = 64

    def prompts(self) -> list[str]:
        """Different texts that begin with the same `shared` words."""
        rng = random.Random(PROMPT_SEED)
        last = self.shape.vocabulary - N_ANSWER_WORDS
        prefix = [rng.randrange(FIRST_WORD, last) for _ in range(self.shared)]
        texts = []
        for _ in range(self.n_prompts):
            length = rng.randint(self.shortest, self.longest)
            own = [rng.randrange(FIRST_WORD, last) for _ in range(length)]
            texts.append(text_of(prefix + own))
        return texts

    def answers(self) -> list[str]:
        """Answers with a space in front; those of several tokens share none."""
        last = self.shape.vocabulary - N_ANSWER_WORDS
        size = self.answer_tokens
        starts = range(last, last + self.n_answers * size, size)
        return [" " + text_of(range(start, start + size)) for start in starts]


@dataclass(frozen=True)
class LinearWork:
    """The block's matrix products alone, by each linear torch offers: the rate to compare with."""

    shape: Shape
    rows: int = 1024
    tera_flops: float = 0.15


@dataclass(frozen=True)
class SkipWork:
    """Skip each block in turn, and none: the log-probability of a token after each document."""

    shape: Shape
    n_documents: int = 32
    length: int = 64

    def documents(self) -> tuple[list[list[int]], list[int]]:
        """Token ids, all of one length, and the token that follows each."""
        rng = random.Random(PROMPT_SEED)
        top = self.shape.vocabulary
        ids = [
            [rng.randrange(FIRST_WORD, top) for _ in range(self.length + 1)]
            for _ in range(self.n_documents)
        ]
        return [row[:-1] for row in ids], [row[-1] for row in ids]

    def skipped(self) -> list[int | None]:
        """The block that each plan leaves out."""
        return [None, *range(self.shape.n_layers)]


Work = SweepWork | DumpWork | ScoringWork | LinearWork | SkipWork


def text_of(tokens: Sequence[int]) -> str:
    """Words with one space between."""
    return " ".join(word(token) for token in tokens)


def work(name: str, shape_name: str, changes: dict[str, Any]) -> Work:
    """The named work on the named shape; `changes` replaces fields of it."""
    return KINDS[name](**{"shape": SHAPES[shape_name], **PRESETS[name], **changes})


KINDS: dict[str, type[Any]] = {
    "residual_sweep": SweepWork,
    "head_sweep": SweepWork,
    "activation_dump": DumpWork,
    "scoring": ScoringWork,
    "linear": LinearWork,
    "layer_skips": SkipWork,
}
PRESETS: dict[str, dict[str, Any]] = {
    "residual_sweep": {},
    "head_sweep": {"component": "head_out"},
    "activation_dump": {},
    "scoring": {},
    "linear": {},
    "layer_skips": {},
}
