"""JSON documents with provenance and a digest of their own content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpflow.errors import UserError
from interpflow.tables.atomic import atomic_path
from interpflow.tables.provenance import SCHEMA_VERSION, Provenance


def write_document(
    path: Path | str, kind: str, content: Mapping[str, Any], provenance: Provenance | None = None
) -> None:
    """Write `content` as the document kind `kind`; NaN becomes null, as JSON knows no NaN."""
    plain = _jsonable(content)
    document = {
        "kind": kind,
        "content_sha256": _digest(plain),
        "provenance": _jsonable((provenance or Provenance()).to_dict()),
        "content": plain,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def read_document(path: Path | str, kind: str) -> dict[str, Any]:
    """The content of a document. Raises UserError when it is missing, damaged or foreign."""
    target = Path(path)
    remedy = "delete it and run the same command again"
    try:
        document = json.loads(target.read_text(encoding="utf-8"))
        found, content = document["kind"], document["content"]
        intact = document["content_sha256"] == _digest(content)
        schema_version = document["provenance"]["schema_version"]
    except FileNotFoundError:
        raise UserError(
            "the document does not exist", where=str(target), remedy="run the workflow"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the document is damaged or foreign: {error}", where=str(target), remedy=remedy
        ) from error
    if not intact:
        raise UserError("the document was changed by hand", where=str(target), remedy=remedy)
    if found != kind:
        raise UserError(f"this is a {found!r}, not a {kind!r}", where=str(target), remedy=remedy)
    if schema_version != SCHEMA_VERSION:
        raise UserError(
            f"written with artifact schema {schema_version}, this version reads {SCHEMA_VERSION}",
            where=str(target),
            remedy=remedy,
        )
    return content


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_jsonable(item) for item in items]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
