"""Rows of prompts from JSON, JSONL, CSV and Parquet files and from data sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.robustness import DatasetSource
from interpflow.errors import UserError

ItemRow = Mapping[str, Any]
# Marks of a data set as `save_to_disk` leaves it: one split, or several in directories.
SAVED_SPLIT, SAVED_SPLITS = "state.json", "dataset_dict.json"


def file_rows(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a file, by its ending; row 1 is the first one (under the header of a CSV).

    Raises UserError naming the file and, where a row is broken, its number or line.
    """
    target = Path(path).expanduser()
    readers: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
        ".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv,
        ".tsv": _csv, ".parquet": _parquet,
    }  # fmt: skip
    ending = target.suffix.lower()
    if ending not in readers:
        raise UserError(
            f"a file of prompts cannot end in {ending!r}", where=str(target),
            remedy=f"use one of: {', '.join(readers)}",
        )  # fmt: skip
    try:
        return readers[ending](target)
    except FileNotFoundError:
        raise UserError(
            "there is no such file", where=str(target), remedy="check robustness.data.path"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the file cannot be read: {error}", where=str(target)) from error


def check_dataset(source: DatasetSource) -> None:
    """Raise UserError for a name that is no directory and has no revision; nothing is loaded."""
    if not Path(source.name).expanduser().is_dir() and source.revision is None:
        raise UserError(
            f"{source.name!r} is no directory, and a data set of the hub needs a revision",
            where="robustness.data.dataset.revision",
            remedy="name the commit, so that every run reads the same data",
        )


def dataset_rows(source: DatasetSource) -> list[dict[str, Any]]:
    """The rows of a data set: of the hub, or of a directory (saved by `datasets`, or data files).

    Raises UserError for an unknown name, configuration or split, a hub name without a revision or
    out of reach, and a directory that holds no data set.
    """
    check_dataset(source)
    key = "robustness.data.dataset"
    directory = Path(source.name).expanduser()
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    try:
        found = _load(source, directory, datasets)
    except (DatasetsError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the data set {source.name!r} cannot be loaded: {reason[:500]}",
            where=key,
            remedy="check its name, config, split and revision, and that the hub can be reached; "
            "a data set saved on disk needs no network",
        ) from error
    return [dict(row) for row in found]


def _load(source: DatasetSource, directory: Path, datasets: Any) -> Any:
    if not directory.is_dir():
        return datasets.load_dataset(
            source.name, source.config, split=source.split, revision=source.revision
        )
    if (directory / SAVED_SPLITS).is_file():
        splits = datasets.load_from_disk(str(directory))
        if source.split not in splits:
            raise ValueError(f"no split {source.split!r}; it has {', '.join(splits)}")
        return splits[source.split]
    if (directory / SAVED_SPLIT).is_file():
        # One split alone keeps its name nowhere that can be relied on.
        return datasets.load_from_disk(str(directory))
    return datasets.load_dataset(str(directory), source.config, split=source.split)


def _json(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise _broken(path, error) from error
    if not isinstance(rows, list) or not rows:
        raise UserError(
            "the file holds no list of rows", where=str(path),
            remedy='write [{"normal": "...", "main": "..."}, ...]',
        )  # fmt: skip
    return _objects(rows, path)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise _broken(path, error, number) from error
    return _objects(rows, path)


def _objects(rows: Sequence[Any], path: Path) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(
                f"row {number} is {type(row).__name__}, not an object with keys", where=str(path)
            )
    return list(rows)


def _broken(path: Path, error: ValueError, line: int | None = None) -> UserError:
    at = line or getattr(error, "lineno", None)
    where = f"{path}, line {at}" if at else str(path)
    return UserError(f"the file is not valid JSON: {error}", where=where)


def _csv(path: Path) -> list[dict[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            rows = list(reader)
        except csv.Error as error:
            raise UserError(
                f"the table is broken: {error}", where=f"{path}, line {reader.line_num}"
            ) from error
    for number, row in enumerate(rows, 1):
        # The reader puts surplus fields under None, and None into missing ones.
        if None in row or None in row.values():
            raise UserError(
                f"row {number} has {'more' if None in row else 'fewer'} fields than the header",
                where=str(path),
                remedy="put texts that hold a comma or a line end into quotes",
            )
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"the Parquet file is damaged: {error}", where=str(path)) from error
