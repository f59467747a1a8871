"""Is a directory a whole store? Missing, unfinished, damaged and foreign ones are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from interpflow.activations.files import (
    INDEX_NAME,
    MANIFEST_DOCUMENT,
    MANIFEST_NAME,
    PLAN_NAME,
    SITES_NAME,
    partial_path,
    shard_name,
)
from interpflow.activations.layout import ShardLayout, shard_layout
from interpflow.activations.sites import SiteRecord
from interpflow.errors import UserError
from interpflow.tables.documents import read_document
from interpflow.tables.provenance import file_digest

Verify = Literal["size", "digest"]

# Up to here digests are compared unless asked otherwise: about a second.
DIGEST_LIMIT = 1 << 30
_AGAIN = "delete it and run the same command again"


def read_manifest(directory: Path, verify: Verify | None) -> Mapping[str, Any]:
    """The manifest of a store whose files have the sizes and digests it says.

    Digests of the tables are always compared, those of the shards with "digest".
    """
    if verify not in (None, "size", "digest"):
        raise UserError(f"a store is verified by 'size' or 'digest', not by {verify!r}",
                        where="verify")  # fmt: skip
    if not (directory / MANIFEST_NAME).is_file():
        raise _no_store(directory)
    manifest = read_document(directory / MANIFEST_NAME, MANIFEST_DOCUMENT)
    files: Mapping[str, Mapping[str, Any]] = manifest["files"]
    total = sum(entry["bytes"] for entry in files.values())
    by_digest = verify == "digest" or (verify is None and total <= DIGEST_LIMIT)
    for name, entry in files.items():
        path = directory / name
        if not path.is_file():
            raise UserError(f"activations are damaged: {name} is missing", where=str(directory),
                            remedy=_AGAIN)  # fmt: skip
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise UserError(
                f"activations are damaged: {name} has {size} bytes, should have {entry['bytes']}",
                where=str(directory), remedy=_AGAIN,
            )  # fmt: skip
        wanted = by_digest or name in (INDEX_NAME, SITES_NAME)
        if wanted and file_digest(path) != entry["sha256"]:
            raise UserError(f"activations are damaged: {name} was changed", where=str(directory),
                            remedy=_AGAIN)  # fmt: skip
    return manifest


def check_shards(
    directory: Path, manifest: Mapping[str, Any], sites: Sequence[SiteRecord]
) -> list[ShardLayout]:
    """The layout of every shard; raises UserError where a file's header says otherwise."""
    layouts = []
    for shard, counts in enumerate(manifest["shards"]):
        layout = shard_layout(
            sites, counts["n_tokens"], counts["n_prompts"], manifest["plan_sha256"]
        )
        with (directory / shard_name(shard)).open("rb") as file:
            header = file.read(len(layout.header))
        if header != layout.header or layout.n_bytes != _bytes(manifest, shard):
            raise UserError(
                f"activations are damaged: {shard_name(shard)} does not hold what the manifest "
                "says", where=str(directory), remedy=_AGAIN,
            )  # fmt: skip
        layouts.append(layout)
    return layouts


def _bytes(manifest: Mapping[str, Any], shard: int) -> int:
    return manifest["files"][shard_name(shard)]["bytes"]


def _no_store(directory: Path) -> UserError:
    resumed = "run the command that writes it again: it goes on where it stopped"
    if (directory / PLAN_NAME).is_file() or (
        not directory.exists() and partial_path(directory).is_dir()
    ):
        return UserError("these activations are unfinished", where=str(directory), remedy=resumed)
    if not directory.exists():
        return UserError(
            "no activations here: the directory does not exist",
            where=str(directory),
            remedy="run the command that writes them",
        )
    return UserError(
        f"no complete activations here: there is no {MANIFEST_NAME}",
        where=str(directory),
        remedy="give the directory of a store, or delete it and run the same command again",
    )
