"""What is written during a pass: given values, or a function of the state that is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from interpflow.engine.sites import Site


@dataclass(frozen=True)
class Edit:
    """Replace the state at `site` in row rows[k], place places[k] by values[k] [n, d].

    Places count from the first position of the pass (not of the prompt, when resumed).
    """

    site: Site
    rows: Tensor
    places: Tensor
    values: Tensor


@dataclass(frozen=True)
class Change:
    """Replace the states at `site` in rows[k], places[k] by `function` of them, [n, d] -> [n, d].

    The function sees the states in force, after the edits that come before it at the same site.
    features: int64, the features that are replaced by the function's, all if None. States of all
    heads of a component are flattened, head after head.
    Places of `k` and `v` may be negative: positions that the model keeps in its own cache.
    """

    site: Site
    rows: Tensor
    places: Tensor
    function: Callable[[Tensor], Tensor]
    features: Tensor | None = None


AnyEdit = Edit | Change


def written(present: Tensor, edit: AnyEdit) -> Tensor:
    """What an edit puts in the place of the states `present` [n, d]."""
    if isinstance(edit, Edit):
        return edit.values.to(present).reshape(present.shape)
    new = edit.function(present).to(present)
    if edit.features is None:
        return new
    features = edit.features.to(present.device)
    kept = present.clone()
    kept[:, features] = new[:, features]
    return kept
