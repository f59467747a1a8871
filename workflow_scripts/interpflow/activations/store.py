"""A directory of activations: shards written as they come, an index, and a manifest last.

Row r of every site's matrix is row r of the index. A reader checks the manifest's digests, so a
half-written or changed directory is never taken for whole.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from interpflow.errors import UserError
from interpflow.tables.atomic import TEMPORARY_MARK, full_disk
from interpflow.tables.parquet import read_table, write_table
from interpflow.tables.provenance import Provenance, file_digest

INDEX_NAME = "index.parquet"
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class Activations:
    """An opened directory: `index` has one row per activation row, `sites` names the matrices."""

    directory: Path
    index: pa.Table
    sites: tuple[str, ...]
    shards: tuple[str, ...]

    def matrix(self, site: str) -> NDArray[np.float32]:
        """The site's activations [row, d_model], rows as in the index."""
        if site not in self.sites:
            raise UserError(
                f"no activations of {site}", where=str(self.directory),
                remedy=f"there are: {', '.join(self.sites)}",
            )  # fmt: skip
        parts = []
        for shard in self.shards:
            with safe_open(self.directory / shard, framework="numpy") as file:
                parts.append(file.get_tensor(site))
        return np.concatenate(parts).astype(np.float32, copy=False)


def write_activations(
    path: Path | str,
    chunks: Iterable[tuple[Mapping[str, NDArray[Any]], Sequence[Mapping[str, Any]]]],
    provenance: Provenance | None = None,
) -> int:
    """Write chunks of (site → [row, d] array, index rows) as shards; returns the rows written.

    The directory appears whole: it is filled under a temporary name and renamed at the end.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}{TEMPORARY_MARK}{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        n_rows = _fill(temporary, chunks, provenance or Provenance())
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        # The tensor library reports a full disk as an error of its own, with the system's words.
        full = OSError(errno.ENOSPC, str(error)) if "os error 28" in str(error) else error
        raise (full_disk(full, target) if isinstance(full, OSError) else full) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return n_rows


def read_activations(path: Path | str) -> Activations:
    """Open a directory of activations. Raises UserError when it is missing, damaged or partial."""
    directory = Path(path)
    remedy = "delete it and run the same command again"
    try:
        manifest = json.loads((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
        files = manifest["files"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"no complete activations here: {error}", where=str(directory), remedy=remedy
        ) from error
    for name, digest in files.items():
        part = directory / name
        if not part.exists() or file_digest(part) != digest:
            raise UserError(f"activations are damaged: {name}", where=str(directory), remedy=remedy)
    return Activations(
        directory=directory,
        index=read_table(directory / INDEX_NAME, "activation_index"),
        sites=tuple(manifest["sites"]),
        shards=tuple(name for name in files if name != INDEX_NAME),
    )


def _fill(
    directory: Path,
    chunks: Iterable[tuple[Mapping[str, NDArray[Any]], Sequence[Mapping[str, Any]]]],
    provenance: Provenance,
) -> int:
    index: list[dict[str, Any]] = []
    files: dict[str, str] = {}
    sites: tuple[str, ...] = ()
    for number, (arrays, rows) in enumerate(chunks):
        sites = tuple(arrays)
        for site, array in arrays.items():
            if len(array) != len(rows):
                raise ValueError(f"{site}: {len(array)} activation rows for {len(rows)} index rows")
        shard = f"shard-{number:05d}.safetensors"
        save_file({site: np.ascontiguousarray(a) for site, a in arrays.items()}, directory / shard)
        files[shard] = file_digest(directory / shard)
        index += [{**row, "row": len(index) + i, "shard": number} for i, row in enumerate(rows)]
    write_table(directory / INDEX_NAME, "activation_index", index, provenance)
    files[INDEX_NAME] = file_digest(directory / INDEX_NAME)
    manifest = {"files": files, "sites": list(sites), "n_rows": len(index),
                "provenance": provenance.to_dict()}  # fmt: skip
    text = json.dumps(manifest, indent=1, sort_keys=True, default=str)
    (directory / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
    return len(index)
