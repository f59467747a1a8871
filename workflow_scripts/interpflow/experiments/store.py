"""Runs of models under plans, kept once: who asks again, for any of the items, gets them for free.

One directory per run, `root/<cell[:2]>/<cell>/<key>/`. There is no common file: writers share
nothing but the names of directories, so any number of processes can write at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from interpflow.errors import UserError
from interpflow.experiments.run_files import (
    StoredRun,
    damaged,
    finish_run,
    open_run,
    read_run,
)
from interpflow.experiments.spec import RunSpec
from interpflow.tables.atomic import TEMPORARY_MARK
from interpflow.tables.schemas import table_schema

Row = Mapping[str, Any]
# Columns that the store fills in: which plan and which run a row comes from.
RUN_COLUMNS = ("plan", "run")


@dataclass(frozen=True)
class Measured:
    """Rows of a run, one per item in the order asked for, and where they come from."""

    table: pa.Table
    runs: tuple[str, ...]
    n_cached: int
    n_new: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.table.to_pylist()


class Store:
    """All runs under a directory."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._known: dict[Path, StoredRun] = {}

    def runs(self) -> list[StoredRun]:
        """Every finished run, in the order of their digests."""
        return [run for cell in sorted(self.root.glob("??/*")) for run in self._of_cell(cell)]

    def unfinished(self) -> list[Path]:
        """Directories of runs that are being done or were killed, with their spec.json."""
        return sorted(self.root.glob(f".*{TEMPORARY_MARK}*"))

    def missing(self, spec: RunSpec) -> tuple[str, ...]:
        """Items of the spec that no run has measured."""
        found = self._places(spec)
        return tuple(item for item in spec.item_ids if item not in found)

    def measured(self, spec: RunSpec, run: Callable[[Sequence[str]], Iterable[Row]]) -> Measured:
        """Rows of the spec; `run` is asked for the items that are not there, and only for those."""
        return self.measured_all([spec], lambda specs: [run(each.item_ids) for each in specs])[0]

    def measured_all(
        self,
        specs: Sequence[RunSpec],
        run: Callable[[Sequence[RunSpec]], Sequence[Iterable[Row]]],
    ) -> list[Measured]:
        """Rows of each spec. `run` gets the specs of which items are missing, cut to these items,
        and gives the rows of each: one per item, without the columns `plan` and `run`.

        Equal specs are run once. Raises UserError for a damaged run, and what `run` raises.
        """
        n_new = self.fill(specs, run)
        return [self.stored(spec, n_new=n_new[spec.key]) for spec in specs]

    def fill(
        self,
        specs: Sequence[RunSpec],
        run: Callable[[Sequence[RunSpec]], Sequence[Iterable[Row]]],
    ) -> dict[str, int]:
        """As `measured_all`, but nothing is read back: by key, the number of items newly run."""
        gaps = {spec.key: self.missing(spec) for spec in specs}
        distinct = {spec.key: spec for spec in specs}.values()
        wanted = [spec.of_items(gaps[spec.key]) for spec in distinct if gaps[spec.key]]
        opened = [open_run(self.root, spec) for spec in wanted]
        try:
            found = run(wanted) if wanted else []
            for spec, directory, rows in zip(wanted, opened, found, strict=True):
                finish_run(directory, self.directory(spec), spec, _as_table(spec, rows))
        finally:
            for directory in opened:
                shutil.rmtree(directory, ignore_errors=True)
        return {key: len(items) for key, items in gaps.items()}

    def stored(self, spec: RunSpec, *, n_new: int = 0) -> Measured:
        """Rows of the spec that are all there. Raises UserError when some are not."""
        places = self._places(spec)
        missing = [item for item in spec.item_ids if item not in places]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(spec.item_ids)} items were never measured under the plan "
                f"{spec.plan}",
                where=str(self.root / spec.cell[:2] / spec.cell),
                remedy="run the workflow",
            )
        parts, order, taken = [], {}, 0
        for run in dict.fromkeys(places[item] for item in spec.item_ids):
            table = run.table()
            ids = table[spec.item_column].to_pylist()
            order.update(
                {item: taken + at for at, item in enumerate(ids) if places.get(item) is run}
            )
            taken += len(ids)
            parts.append(table)
        lost = [item for item in spec.item_ids if item not in order]
        if lost:
            raise damaged(places[lost[0]].directory, f"it has no row of {lost[0]}")
        table = pa.concat_tables(parts) if parts else table_schema(spec.table).empty_table()
        keys = sorted({run.spec.key for run in places.values()})
        places_of = pa.array([order[item] for item in spec.item_ids], pa.int64())
        rows = table.unify_dictionaries().combine_chunks().take(places_of)
        return Measured(rows, tuple(keys), len(spec.item_ids) - n_new, n_new)

    def merged(self, specs: Sequence[RunSpec]) -> pa.Table:
        """The rows of specs of one measure as one table, in the order of the specs."""
        tables = {spec.table for spec in specs}
        if len(tables) != 1:
            raise ValueError(f"one table is merged from runs of one measure, not of {tables}")
        return pa.concat_tables([self.stored(spec).table for spec in specs]).unify_dictionaries()

    def directory(self, spec: RunSpec) -> Path:
        """Where the run of exactly this spec lies."""
        return self.root / spec.cell[:2] / spec.cell / spec.key

    def _places(self, spec: RunSpec) -> dict[str, StoredRun]:
        """The run that each item of the spec is read from; the first by key that has it."""
        wanted, found = set(spec.item_ids), {}
        for run in self._of_cell(self.root / spec.cell[:2] / spec.cell):
            for item in wanted.intersection(run.spec.item_ids):
                found.setdefault(item, run)
        return found

    def _of_cell(self, cell: Path) -> list[StoredRun]:
        if not cell.is_dir():
            return []
        found = []
        for directory in sorted(cell.iterdir()):
            if directory not in self._known:
                run = read_run(directory)
                if run is None:
                    continue
                self._known[directory] = run
            found.append(self._known[directory])
        return found


def _as_table(spec: RunSpec, rows: Iterable[Row]) -> pa.Table:
    """Rows as the table that is stored; every item of the spec has one, and nothing else has."""
    listed = [{**row, "plan": spec.plan, "run": spec.key} for row in rows]
    schema = table_schema(spec.table)
    ids = [row[spec.item_column] for row in listed]
    if sorted(ids) != list(spec.item_ids):
        raise ValueError(f"a run of {len(spec.item_ids)} items gave rows of {len(ids)}")
    wrong = sorted({name for row in listed for name in set(row) ^ set(schema.names)})
    if wrong:
        raise ValueError(f"table {spec.table!r}: columns do not match the schema: {wrong}")
    return pa.Table.from_pylist(listed, schema=schema)
