"""What an artifact was made from: stored in every artifact, compared when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 2  # of all artifacts; raised when a column or key changes its meaning
TRACKED_PACKAGES = ("numpy", "scipy", "statsmodels", "scikit-learn", "torch", "transformers",
                    "tokenizers", "safetensors", "pyarrow")  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """Where an artifact comes from. No clock time: equal inputs give equal bytes.

    `spec` is the part of the config the rule reads, `code` the digest of the code it runs and
    `modules` the digest of each module in it; `inputs` maps file names to content digests.
    """

    rule: str = "interactive"
    spec: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def with_model(self, name: str, revision: str) -> Provenance:
        return replace(self, models={**self.models, name: revision})


def package_versions(names: Iterable[str] = TRACKED_PACKAGES) -> dict[str, str]:
    """Installed versions; read from metadata, so that nothing heavy is imported."""
    found = {name: _version(name) for name in names}
    return {name: number for name, number in found.items() if number is not None}


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes; of a directory, that of its manifest.json."""
    target = Path(path)
    if target.is_dir():
        target = target / "manifest.json"
    digest = hashlib.sha256()
    with target.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
