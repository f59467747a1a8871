"""What a name or path given by a user stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from interpflow.errors import UserError
from interpflow.models.acquire import ModelSource
from interpflow.models.hub import HUB_ID
from interpflow.paths import RESOURCES_DIR


def source_of(
    name_or_path: ModelSource | Path | str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    resources_dir: Path = RESOURCES_DIR,
) -> ModelSource:
    """The source that a name or path stands for: a directory, a reference model, or a hub id.

    Raises UserError when it is none of these, for a hub id without revision, and for a revision of
    anything else.
    """
    if isinstance(name_or_path, ModelSource):
        return name_or_path
    name = str(name_or_path)
    directory = Path(name).expanduser()
    kind: Literal["hub", "local", "reference"] = "local"
    if not isinstance(name_or_path, Path) and not directory.is_dir():
        if "/" not in name and (resources_dir / "reference" / name).is_dir():
            kind = "reference"
        elif HUB_ID.fullmatch(name) and revision:
            kind = "hub"
        else:
            raise UserError(
                f"there is no model {name!r}: no such directory and no such reference model",
                where="model",
                remedy="correct the path; a model of the hub is owner/name with a revision",
            )
    if revision is not None and kind != "hub":
        raise UserError(
            "only a model of the hub has a revision", where=f"model {name}",
            remedy="leave the revision out",
        )  # fmt: skip
    location = str(directory) if kind == "local" else name
    return ModelSource(directory.name or name, kind, location, revision, dtype)
