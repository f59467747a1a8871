"""What a store holds of a model: one record per tensor name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interpflow.activations.dtypes import StorageType, storage_type
from interpflow.errors import UserError

Per = Literal["token", "prompt"]

_NAME = re.compile(r"(?P<component>[^.]+)(\.L(?P<layer>\d+))?(\.H(?P<head>\d+))?")


def site_rows(
    sites: Iterable[SiteRecord], model_revision: str, tokenizer_digest: str
) -> list[dict[str, Any]]:
    """Rows of the table `activation_sites`."""
    return [
        {
            "site": record.site,
            "component": record.component,
            "layer": record.layer,
            "head": record.head,
            "dtype": record.dtype,
            "width": record.width,
            "per": record.per,
            "allow_nonfinite": record.allow_nonfinite,
            "model_revision": model_revision,
            "tokenizer_digest": tokenizer_digest,
        }
        for record in sites
    ]


def sites_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, SiteRecord]:
    """Name → record, from rows of the table `activation_sites`."""
    kept = ("site", "width", "dtype", "per", "allow_nonfinite")
    return {row["site"]: SiteRecord(**{key: row[key] for key in kept}) for row in rows}


@dataclass(frozen=True)
class SiteRecord:
    """One tensor of every shard, named as the engine names sites: "embed", "resid_post.L3",
    "head_out.L2.H1"; what is no site ("top_logits") is named likewise.

    per: "token" gives a row of `width` numbers per kept token, "prompt" one per prompt.
    dtype: what is written; giving a narrower type than was computed is the caller's decision.
    allow_nonfinite: NaN and infinities are values here, not the sign of a fault.
    """

    site: str
    width: int
    dtype: str = "float32"
    per: Per = "token"
    allow_nonfinite: bool = False

    def __post_init__(self) -> None:
        storage_type(self.dtype)
        if self.width < 1 or self.per not in get_args(Per):
            raise UserError(
                f"a site has a width of 1 or more, per token or per prompt, not {self.width} per "
                f"{self.per}",
                where=self.site,
            )
        if not self.site or self.site.startswith("__"):  # safetensors keeps "__metadata__"
            raise UserError(f"{self.site!r} cannot name a site", where="sites")

    @property
    def component(self) -> str:
        """The name without layer and head."""
        return self._part("component") or self.site

    @property
    def layer(self) -> int:
        """Layer of the name, from 0; −1 where it has none (the embedding)."""
        return int(self._part("layer") or -1)

    @property
    def head(self) -> int:
        """Head of the name, from 0; −1 where it has none (all heads)."""
        return int(self._part("head") or -1)

    @property
    def storage(self) -> StorageType:
        return storage_type(self.dtype)

    @property
    def row_bytes(self) -> int:
        return self.width * self.storage.bits.itemsize

    def _part(self, part: str) -> str | None:
        found = _NAME.fullmatch(self.site)
        return found[part] if found else None
