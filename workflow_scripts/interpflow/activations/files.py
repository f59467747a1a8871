"""Names of a store's files, documents and tables."""

from __future__ import annotations

from pathlib import Path

from interpflow.tables.atomic import RESUMABLE_MARK

INDEX_NAME, INDEX_TABLE = "index.parquet", "activation_index"
SITES_NAME, SITES_TABLE = "sites.parquet", "activation_sites"
MANIFEST_NAME, MANIFEST_DOCUMENT = "manifest.json", "activations"
# Only while the store is unfinished:
PLAN_NAME, PLAN_DOCUMENT = "plan.json", "activation_plan"
PARTS_NAME, SHARD_DOCUMENT = "parts", "activation_shard"


def partial_path(path: Path) -> Path:
    """Where the store at `path` grows: one place, so that the next run finds it."""
    return path.with_name(f".{path.name}{RESUMABLE_MARK}")


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.safetensors"


def index_part(directory: Path, shard: int) -> Path:
    """The index of one finished shard."""
    return directory / PARTS_NAME / f"index-{shard:05d}.parquet"


def shard_document(directory: Path, shard: int) -> Path:
    """Size and digest of one finished shard; written last, so its presence means finished."""
    return directory / PARTS_NAME / f"shard-{shard:05d}.json"
