"""The largest logits of each row and their tokens, in memory that is used again at every call.

Logits are made in tiles of rows and columns. While a tile lies in cache, the largest of every group
of its columns is taken; then the groups that hold the largest of these are searched. The k largest
of a row lie in the k groups with the largest maxima, so nothing is missed. Fresh memory for all
logits would cost as much as half of the product, because the system hands it out page by page.
Product and search take 180 µs for a row of 50,257 at d = 128; the product alone, in cache, 90.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from interpflow.engine.architecture import Architecture
from interpflow.engine.model import full_precision
from interpflow.engine.passes.linear_kernels import chosen_kernel, linear

# The linear is at its full rate from so many rows on, and the logits of so many are kept at once
# unless they are more bytes than LOGIT_BYTES.
TILE_ROWS, LOGIT_BYTES = 512, 256 << 20
# 512 rows of about so many columns are 4 MiB.
TILE_COLUMNS = 2048
GROUP, INNER_GROUP = 16, 8
# Groups of a tile come in multiples of this, so that their maxima fill a processor's vectors.
VECTOR = 16


class TopLogits:
    """The `k` largest logits after the last block, which `of` finds for any number of rows."""

    def __init__(self, architecture: Architecture, k: int) -> None:
        self._architecture, self._k = architecture, k
        self._logits = torch.empty(0)

    def of(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest logits [row, k] in falling order and their token ids [row, k] (int64) for
        residuals [row, d_model].

        Logits are what `architecture.unembed` gives, float32 (float64 if the model is). Which of
        equal logits come first is not defined, but is the same every time.
        """
        if not len(residual):
            return residual.new_empty(0, self._k), residual.new_empty(0, self._k, dtype=torch.int64)
        unembedding = self._architecture.unembedding
        n_tokens = len(unembedding.weight) if type(unembedding) is nn.Linear else 0
        n_rows = TILE_ROWS
        if n_tokens:
            n_rows = max(1, min(n_rows, LOGIT_BYTES // (n_tokens * residual.element_size())))
        found = []
        with torch.no_grad():
            for rows in residual.split(n_rows):
                state = self._architecture.normalized(rows)
                # A hooked one is called as it is; of few columns too many would be candidates.
                hooked = unembedding._forward_hooks or unembedding._forward_pre_hooks
                few = n_tokens <= 2 * GROUP * self._k
                if type(unembedding) is not nn.Linear or hooked or few:
                    logits = self._architecture.scaled(unembedding(state))
                    found.append(full_precision(logits).topk(self._k, dim=1))
                else:
                    found.append(self._searched(state, unembedding, n_tokens))
        return torch.cat([values for values, _ in found]), torch.cat([ids for _, ids in found])

    def _searched(self, state: Tensor, head: nn.Linear, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Group j of the G groups of a tile holds its columns j, j + G, j + 2G, …: maxima are then
        taken along the rows of a matrix, which a CPU does for many groups at once."""
        n_rows, device = len(state), state.device
        n_tiles, width = _tiling(n_tokens, TILE_COLUMNS if state.is_cpu else n_tokens)
        n_groups = width // GROUP
        tiles = self._room(n_tiles * n_rows * width, state).view(n_tiles, n_rows, width)
        maxima = state.new_empty(n_rows, n_tiles * n_groups)
        for number, tile in enumerate(tiles):
            self._fill(tile, state, head, slice(number * width, (number + 1) * width))
            of_tile = maxima[:, number * n_groups : (number + 1) * n_groups]
            torch.amax(tile.unflatten(1, (GROUP, n_groups)), dim=1, out=of_tile)
        groups = _places_of_largest(maxima, self._k)
        number = groups.div(n_groups, rounding_mode="floor")
        steps = torch.arange(0, width, n_groups, device=device)[:, None]
        inside = ((groups - number * n_groups)[:, None] + steps).flatten(1)
        number = number[:, None].expand(-1, GROUP, -1).flatten(1)
        row = torch.arange(n_rows, device=device)[:, None]
        values = torch.take(tiles, (number * n_rows + row) * width + inside)
        columns = number * width + inside
        first = n_tiles * width
        if first < n_tokens:
            rest = state.new_empty(n_rows, n_tokens - first)
            self._fill(rest, state, head, slice(first, n_tokens))
            values = torch.cat([values, rest], dim=1)
            last = torch.arange(first, n_tokens, device=device)
            columns = torch.cat([columns, last.expand(n_rows, -1)], dim=1)
        values, order = full_precision(values).topk(self._k, dim=1)
        return values, columns.gather(1, order)

    def _fill(self, tile: Tensor, state: Tensor, head: nn.Linear, columns: slice) -> None:
        """Put the logits of some columns in a tile."""
        weight = head.weight[columns]
        bias = None if head.bias is None else head.bias[columns]
        if _kernel(state, weight) == "onednn":
            product = linear("onednn", state, weight, bias)
        elif bias is None:
            product = torch.mm(state, weight.t(), out=tile)
        else:
            product = torch.addmm(bias, state, weight.t(), out=tile)
        logits = self._architecture.scaled(product)
        if logits is not tile:
            tile.copy_(logits)

    def _room(self, size: int, like: Tensor) -> Tensor:
        kept = self._logits
        if kept.numel() < size or kept.dtype != like.dtype or kept.device != like.device:
            self._logits = like.new_empty(size)
        return self._logits[:size]


def _kernel(state: Tensor, weight: Tensor) -> str:
    if state.is_cpu and state.dtype == weight.dtype == torch.float32:
        return chosen_kernel(len(state), weight.shape[1], len(weight))
    return "plain"


def _tiling(n_columns: int, about: int) -> tuple[int, int]:
    """Number and width of equal tiles that leave the fewest columns over; widths between half and
    twice `about` if that can be, of so many groups that they fill a processor's vectors."""
    unit = GROUP * VECTOR if n_columns >= 16 * GROUP * VECTOR else GROUP
    units = n_columns // unit
    middle = max(1, about // unit)
    widths = range(max(1, middle // 2), min(units, 2 * middle) + 1)
    width = max(widths, key=lambda w: units // w * w, default=units)
    return units // width, width * unit


def _places_of_largest(values: Tensor, k: int) -> Tensor:
    """Columns [row, k] of the k largest of values [row, column], in any order, found by groups
    too. NaN counts as the largest number."""
    n_groups = values.shape[1] // INNER_GROUP
    if n_groups <= 2 * k:
        return values.topk(k, dim=1, sorted=False).indices
    n_grouped = n_groups * INNER_GROUP
    grouped = values[:, :n_grouped].unflatten(1, (INNER_GROUP, n_groups))
    chosen = grouped.amax(dim=1).topk(k, dim=1, sorted=False).indices
    steps = torch.arange(0, n_grouped, n_groups, device=values.device)[:, None]
    columns = (chosen[:, None] + steps).flatten(1)
    rest = torch.arange(n_grouped, values.shape[1], device=values.device)
    columns = torch.cat([columns, rest.expand(len(values), -1)], dim=1)
    order = values.gather(1, columns).topk(k, dim=1, sorted=False).indices
    return columns.gather(1, order)
