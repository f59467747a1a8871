"""Write a store while a model runs: bounded memory, shards whole or absent, killed runs resumed."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.activations.dtypes import is_finite, to_float32, to_stored
from interpflow.activations.files import partial_path
from interpflow.activations.index_columns import index_columns
from interpflow.activations.open_shard import OpenShard
from interpflow.activations.partial import (
    complete_store,
    discard_all_but,
    finished_shards,
    lock,
    put_in_place,
    take_over,
)
from interpflow.activations.plan import WritePlan
from interpflow.activations.sites import SiteRecord
from interpflow.errors import UserError
from interpflow.tables.atomic import full_disk
from interpflow.tables.provenance import Provenance

logger = logging.getLogger("interpflow.activations")


class ActivationWriter:
    """Fills the store at `path` by a plan; a context manager.

    The store grows in a directory beside `path` and appears there whole at the end of the block.
    A shard that is finished stays finished: after a kill or an error, a writer with the same plan
    and provenance goes on with `remaining()`; with another plan it begins afresh. For the same
    bytes as an undisturbed run, let no batch span two of the ranges of `remaining()`.

        with ActivationWriter(path, plan, provenance=provenance) as writer:
            for prompts in writer.remaining():
                for batch in batches_of(prompts):
                    writer.append(ids, tensors, columns)

    Memory is that of the batch and of the index of the shards that are open: one, when prompts
    come in the order of the plan. Only one process can write to a path at a time.
    """

    def __init__(
        self, path: Path | str, plan: WritePlan, *, provenance: Provenance | None = None
    ) -> None:
        self._path, self._plan = Path(path), plan
        self._provenance = provenance or Provenance()
        self._digest = plan.digest(self._provenance.to_dict())
        self._partial = partial_path(self._path)
        self._done: set[int] = set()
        self._open: dict[int, OpenShard] = {}
        self._finishing: tuple[int, Future[None]] | None = None
        self._lock = -1

    def __enter__(self) -> ActivationWriter:
        with _disk_errors(self._path):
            self._lock = lock(self._partial)
            try:
                take_over(self._partial, self._digest)
                self._done = finished_shards(self._partial, self._plan, self._digest)
                discard_all_but(self._partial, self._done)
                self._check_space()
            except BaseException:
                os.close(self._lock)
                raise
        # fsync, digest and rename of a shard wait for the disk, while the next one fills.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="activation-shard")
        if self._done:
            logger.info(
                "%s: goes on after %d of %d shards", self._path, len(self._done), self.n_shards
            )
        return self

    @property
    def n_shards(self) -> int:
        return self._plan.n_shards

    @property
    def done_shards(self) -> frozenset[int]:
        """Numbers of the shards that are finished, those of an earlier run included."""
        return frozenset(self._done)

    def remaining(self) -> tuple[range, ...]:
        """The prompts still to come, as places in the plan: one range per unfinished shard."""
        return tuple(
            self._plan.prompts(shard) for shard in range(self.n_shards) if not self._is_past(shard)
        )

    def append(
        self,
        example_ids: Sequence[str],
        tensors: Mapping[str, Any],
        columns: Mapping[str, Sequence[Any] | NDArray[Any]],
    ) -> None:
        """Write whole prompts, in any order; those of finished shards are passed over.

        tensors: site → NumPy array or torch tensor (on any device), prompts one after the other
        without padding: [kept tokens, width], or [prompts, width] for a site per prompt.
        columns: of each kept token: token_position, and where known token_id, char_start,
        char_end, role, and the plan's own columns.
        Raises UserError when a site holds NaN or an infinity, naming example and token, or the
        disk is full; ValueError when shapes, names or ids do not fit the plan.
        """
        plan = self._plan
        prompts = plan.find(example_ids)
        if len(np.unique(prompts)) < len(prompts):
            raise ValueError("a prompt was given twice")
        starts = np.concatenate([[0], np.cumsum(plan.n_tokens[prompts])])
        self._check_shapes(tensors, n_tokens=int(starts[-1]), n_prompts=len(prompts))
        index = index_columns(columns, int(starts[-1]), plan.columns)
        with _disk_errors(self._path), ExitStack() as stack:
            runs = [run for run in self._runs(prompts) if not self._is_past(run.shard)]
            for run in runs:
                self._shard(run.shard).check_new(run.first, run.first + run.stop - run.begin)
            files = {
                shard: stack.enter_context(self._open[shard].opened())
                for shard in {run.shard for run in runs}
            }
            # Site by site, so that only one of them is in memory twice.
            for record in plan.sites if runs else ():
                bits = self._bits(record, tensors[record.site], prompts, starts)
                for run in runs:
                    rows = run.tokens(starts) if record.per == "token" else run.prompts
                    self._open[run.shard].put(files[run.shard], record, run.first, bits[rows])
            for run in runs:
                tokens = run.tokens(starts)
                given = index.slice(tokens.start, tokens.stop - tokens.start)
                self._open[run.shard].mark(run.first, run.first + run.stop - run.begin, given)
            for shard in files:
                if self._open[shard].is_full:
                    self._finish(shard)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with _disk_errors(self._path):
                if error is None:
                    self._settle()
                    self._complete()
                else:
                    self._give_up()
        finally:
            self._thread.shutdown()
            os.close(self._lock)

    def _complete(self) -> None:
        missing = sum(len(prompts) for prompts in self.remaining())
        if missing:
            self._give_up()
            raise ValueError(f"unfinished shards: their {missing} prompts were not all appended")
        complete_store(self._partial, self._plan, self._digest, self._provenance)
        put_in_place(self._partial, self._path)

    def _give_up(self) -> None:
        """Keep what is finished for the next run; leave nothing where nothing is."""
        try:
            self._settle()
        except Exception:
            # The error that ended the block is the one to report.
            logger.warning("a shard could not be finished", exc_info=True)
        discard_all_but(self._partial, self._done)
        if not self._done:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _finish(self, shard: int) -> None:
        self._settle()  # at most one shard waits for the disk
        self._finishing = shard, self._thread.submit(self._open.pop(shard).finish)

    def _settle(self) -> None:
        if self._finishing is not None:
            (shard, future), self._finishing = self._finishing, None
            future.result()
            self._done.add(shard)

    def _is_past(self, shard: int) -> bool:
        """Whether all prompts of a shard are written, even if it still waits for the disk."""
        waits = self._finishing is not None and self._finishing[0] == shard
        return waits or shard in self._done

    def _shard(self, shard: int) -> OpenShard:
        if shard not in self._open:
            self._open[shard] = OpenShard(self._partial, self._plan, shard, self._digest)
        return self._open[shard]

    def _runs(self, prompts: NDArray[np.int64]) -> list[_Run]:
        """Stretches of consecutive prompts of one shard: what is contiguous in its file."""
        shards = self._plan.shard_of(prompts)
        breaks = np.flatnonzero((np.diff(prompts) != 1) | (np.diff(shards) != 0)) + 1
        edges = [0, *breaks.tolist(), len(prompts)]
        return [
            _Run(int(shards[begin]), int(prompts[begin]), begin, stop)
            for begin, stop in itertools.pairwise(edges)
            if stop > begin
        ]

    def _check_space(self) -> None:
        needed = sum(
            self._plan.layout(shard, self._digest).n_bytes
            for shard in range(self.n_shards)
            if shard not in self._done
        )
        free = shutil.disk_usage(self._partial).free
        if needed > free:
            raise UserError(
                f"the activations need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free",
                where=str(self._path),
                remedy="free some space, or keep fewer sites, positions or prompts",
            )

    def _check_shapes(self, tensors: Mapping[str, Any], n_tokens: int, n_prompts: int) -> None:
        wrong = set(tensors) ^ {record.site for record in self._plan.sites}
        if wrong:
            raise ValueError(f"sites do not match the plan: {', '.join(sorted(wrong))}")
        for record in self._plan.sites:
            shape = tuple(tensors[record.site].shape)
            expected = (n_tokens if record.per == "token" else n_prompts, record.width)
            if shape != expected:
                raise ValueError(f"{record.site}: shape {shape}, expected {expected}")

    def _bits(
        self,
        record: SiteRecord,
        values: Any,
        prompts: NDArray[np.int64],
        starts: NDArray[np.int64],
    ) -> NDArray[Any]:
        """What is stored of a site's values [rows, width]; refuses NaN and infinities."""
        bits = to_stored(values, record.dtype)
        if not record.allow_nonfinite and not is_finite(bits, record.dtype):
            raise self._not_finite(record, values, bits, prompts, starts)
        return bits

    def _not_finite(
        self,
        record: SiteRecord,
        values: Any,
        bits: NDArray[Any],
        prompts: NDArray[np.int64],
        starts: NDArray[np.int64],
    ) -> UserError:
        wrong = ~np.isfinite(to_float32(bits, record.dtype))
        row, feature = (int(place) for place in np.argwhere(wrong)[0])
        prompt, where = row, ""
        if record.per == "token":
            prompt = int(np.searchsorted(starts, row, side="right")) - 1
            where = f", kept token {row - int(starts[prompt])}"
        layer = f" (layer {record.layer})" if record.layer >= 0 else ""
        given_as_bits = values.dtype == np.uint16
        value = float((to_float32(bits, record.dtype) if given_as_bits else values)[row, feature])
        if np.isfinite(value):
            what = f"{value:g} at {record.site}{layer} is too large for {record.dtype}"
            remedy = "store the site as bfloat16 or float32"
        else:
            what = f"{record.site}{layer} holds {value}"
            remedy = "look for the fault in the model, its number type or the intervention"
        example_id = self._plan.example_ids[int(prompts[prompt])].as_py()
        return UserError(what, where=f"example {example_id}{where}", remedy=remedy)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise full_disk(error, path) from error


@dataclass(frozen=True)
class _Run:
    """The prompts begin … stop − 1 of a batch, which are prompt `first` and those after it."""

    shard: int
    first: int
    begin: int
    stop: int

    @property
    def prompts(self) -> slice:
        return slice(self.begin, self.stop)

    def tokens(self, starts: NDArray[np.int64]) -> slice:
        return slice(int(starts[self.begin]), int(starts[self.stop]))
