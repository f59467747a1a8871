"""The directory in which a store grows: what a killed run left there, and its way to its name."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interpflow.activations.files import (
    INDEX_NAME,
    INDEX_TABLE,
    MANIFEST_DOCUMENT,
    MANIFEST_NAME,
    PARTS_NAME,
    PLAN_DOCUMENT,
    PLAN_NAME,
    SHARD_DOCUMENT,
    SITES_NAME,
    SITES_TABLE,
    index_part,
    shard_document,
    shard_name,
)
from interpflow.activations.plan import WritePlan
from interpflow.activations.sites import site_rows
from interpflow.errors import UserError
from interpflow.tables.atomic import TEMPORARY_MARK, sync_directory
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import write_table, write_table_parts
from interpflow.tables.provenance import Provenance, file_digest


def lock(directory: Path) -> int:
    """A descriptor that holds the directory's lock; a killed process gives its lock back."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(directory, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another writer may have finished, and renamed the directory, in between.
            if directory.exists() and directory.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                "another process is writing these activations",
                where=str(directory),
                remedy="wait for it, or write to another path",
            ) from None
        os.close(descriptor)


def take_over(partial: Path, digest: str) -> None:
    """Make the directory that of this plan: what another plan left in it is deleted."""
    planned = _content(partial / PLAN_NAME, PLAN_DOCUMENT).get("plan_sha256")
    if planned == digest or _is_complete(partial, digest):
        return
    for path in partial.iterdir():
        _delete(path)
    write_document(partial / PLAN_NAME, PLAN_DOCUMENT, {"plan_sha256": digest})


def finished_shards(partial: Path, plan: WritePlan, digest: str) -> set[int]:
    """The shards that are there whole: document, index and a file of the planned header and size.

    Their digests were taken when they were written; a reader that compares them finds a shard
    that the disk damaged since.
    """
    if _is_complete(partial, digest):
        return set(range(plan.n_shards))
    return {shard for shard in range(plan.n_shards) if _is_finished(partial, plan, shard, digest)}


def discard_all_but(partial: Path, done: set[int]) -> None:
    """Delete what belongs to no finished shard: files that were being written."""
    kept = {shard_name(shard) for shard in done}
    for shard in done:
        kept |= {index_part(partial, shard).name, shard_document(partial, shard).name}
    for path in [*partial.iterdir(), *(partial / PARTS_NAME).glob("*")]:
        is_tensors = path.name.startswith("shard-") or path.parent.name == PARTS_NAME
        if TEMPORARY_MARK in path.name or (is_tensors and path.name not in kept):
            _delete(path)


def complete_store(partial: Path, plan: WritePlan, digest: str, provenance: Provenance) -> None:
    """Write index, sites and manifest of a directory whose shards are all finished."""
    if not _is_complete(partial, digest):
        shards = range(plan.n_shards)
        write_table_parts(
            partial / INDEX_NAME, INDEX_TABLE, _index_parts(partial, plan), provenance,
            extra=plan.columns,
        )  # fmt: skip
        rows = site_rows(plan.sites, plan.model_revision, plan.tokenizer_digest)
        write_table(partial / SITES_NAME, SITES_TABLE, rows, provenance)
        files = {
            shard_name(shard): read_document(shard_document(partial, shard), SHARD_DOCUMENT)
            for shard in shards
        }
        for name in (INDEX_NAME, SITES_NAME):
            path = partial / name
            files[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        content = {
            "files": files,
            "shards": [
                {"n_tokens": plan.tokens(shard), "n_prompts": len(plan.prompts(shard))}
                for shard in shards
            ],
            "n_tokens": plan.total_tokens,
            "n_prompts": plan.n_prompts,
            "model_revision": plan.model_revision,
            "tokenizer_digest": plan.tokenizer_digest,
            "settings": plan.settings,
            "plan_sha256": digest,
        }
        write_document(partial / MANIFEST_NAME, MANIFEST_DOCUMENT, content, provenance)
    # From here on the manifest alone says that all is there.
    _delete(partial / PARTS_NAME)
    _delete(partial / PLAN_NAME)
    sync_directory(partial)


def put_in_place(partial: Path, target: Path) -> None:
    """Give the complete directory its name, in place of an older store."""
    retired = target.with_name(f".{target.name}{TEMPORARY_MARK}{os.getpid()}")
    if target.exists():
        target.replace(retired)
    partial.replace(target)
    sync_directory(target.parent)
    _delete(retired)


def _is_complete(partial: Path, digest: str) -> bool:
    manifest = _content(partial / MANIFEST_NAME, MANIFEST_DOCUMENT)
    return manifest.get("plan_sha256") == digest


def _is_finished(partial: Path, plan: WritePlan, shard: int, digest: str) -> bool:
    if not _content(shard_document(partial, shard), SHARD_DOCUMENT):
        return False
    layout = plan.layout(shard, digest)
    try:
        with (partial / shard_name(shard)).open("rb") as file:
            intact = file.read(len(layout.header)) == layout.header
            intact &= os.fstat(file.fileno()).st_size == layout.n_bytes
        return intact and pq.read_metadata(index_part(partial, shard)).num_rows == plan.tokens(
            shard
        )
    except (OSError, pa.ArrowException):
        return False


def _index_parts(partial: Path, plan: WritePlan) -> Iterator[pa.Table]:
    for shard in range(plan.n_shards):
        with pq.ParquetFile(index_part(partial, shard), page_checksum_verification=True) as file:
            yield file.read(use_threads=False)
        # Else the pool keeps pages of part after part, and memory grows with their number.
        pa.default_memory_pool().release_unused()


def _content(path: Path, kind: str) -> dict[str, Any]:
    """What a document of a partial directory says; nothing where it is missing or damaged."""
    try:
        return read_document(path, kind)
    except UserError:
        return {}


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
