"""Plans on batches of rows: the intact model first, then every plan beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interpflow.engine.layers.execute import TOKENS_PER_PASS, PlanRunner
from interpflow.engine.model import Model
from interpflow.inference.batching import Progress
from interpflow.inference.surgery.readings import PlaceReader, Readings, places_at_once
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.plans.layer_plan import LayerPlan


@dataclass(frozen=True)
class Surroundings:
    """What a row under a plan depends on besides the row.

    neutral: token ids of the documents that mean and resample ablations read; donors: by item id,
    the prompt that is patched from; seed: of what is drawn.
    """

    neutral: Sequence[Sequence[int]] = ()
    donors: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0


NOTHING = Surroundings()


@dataclass(frozen=True, eq=False)
class PlanBatch:
    """One plan on one batch of rows. rows: numbers of the rows; first: number of each row's first
    place among the readings; intact, readings: at all places of the rows, one row after the
    other; reader: what read them, the same for all plans on these rows."""

    plan: int
    rows: tuple[int, ...]
    first: tuple[int, ...]
    intact: Readings
    readings: Readings
    states: Tensor
    reader: PlaceReader
    belongs: Tensor

    def means(self, values: Tensor) -> Tensor:
        """Means [n, row] over each row's places of values float64 [n, place]."""
        # Sums before the division: the mean of ones is exactly 1.
        return values @ self.belongs / self.belongs.sum(dim=0)


def plan_batches(
    model: Model,
    plans: Sequence[LayerPlan],
    rows: Sequence[ScoredRow],
    surroundings: Surroundings = NOTHING,
    *,
    tokens_per_batch: int = TOKENS_PER_PASS,
    progress: Progress | None = None,
) -> Iterator[PlanBatch]:
    """Each plan on every batch of rows. The intact model runs once per batch; its probabilities
    are in memory for that batch alone.

    progress counts rows under plans and their tokens.
    """
    runner = PlanRunner(
        model,
        [LayerPlan.of(range(model.n_layers)), *plans],
        neutral=surroundings.neutral,
        seed=surroundings.seed,
        tokens_per_pass=min(tokens_per_batch, TOKENS_PER_PASS, places_at_once(model)),
    )
    donors = [surroundings.donors.get(row.item_id, ()) for row in rows]
    batch: _Batch | None = None
    tokens, places = [row.tokens for row in rows], [row.places for row in rows]
    for found in runner.states(tokens, places, donors if any(map(len, donors)) else None):
        if found.plan == 0:
            batch = _Batch.of(model, [rows[number] for number in found.rows], found.states)
            continue
        assert batch is not None, "the intact model comes first"
        yield PlanBatch(
            found.plan - 1, found.rows, batch.first, batch.intact,
            batch.reader.read(found.states), found.states, batch.reader, batch.belongs,
        )  # fmt: skip
        if progress is not None:
            progress.advance(len(found.rows), batch.n_tokens)


@dataclass(frozen=True, eq=False)
class _Batch:
    """belongs: float64 [place, row], 1 where a place is one of the row's."""

    first: tuple[int, ...]
    belongs: Tensor
    intact: Readings
    reader: PlaceReader
    n_tokens: int

    @classmethod
    def of(cls, model: Model, rows: Sequence[ScoredRow], states: Tensor) -> _Batch:
        targets = torch.tensor([token for row in rows for token in row.targets])
        reader = PlaceReader(model, states, targets)
        counts = torch.tensor([len(row.places) for row in rows])
        first = counts.cumsum(0) - counts
        at_rows = torch.arange(len(rows)).repeat_interleave(counts)
        belongs = (at_rows[:, None] == torch.arange(len(rows))).double().to(states.device)
        return cls(
            tuple(first.tolist()), belongs, reader.read(states), reader,
            sum(len(row.tokens) for row in rows),
        )  # fmt: skip
