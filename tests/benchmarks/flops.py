"""Floating-point operations that a sweep needs: done naively, and at the exact minimum.

One multiply-add counts as two operations. Only matrix products count: projections, MLP, unembedding
and the two products of attention, the latter over the keys a query may see. Norms, activations and
additions are left out (below 1 % at these shapes).

The minimum, for a causal decoder whose answer is read at the last position: a patch of the
residual at (layer, position) can change only later blocks and later positions. So the blocks after
the patch run for the positions from the patch on; the last block runs keys and values for them but
everything else for the final query only; keys and values of earlier positions, and the residual
that enters the first block, come from the run that is patched.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.shapes import Shape


@dataclass(frozen=True)
class SweepSize:
    """A sweep of every layer × position, or of every layer × head at the last position.

    component: resid_pre, resid_post or head_out. shared: leading tokens equal in both prompts of a
    pair, where a patch changes nothing. answers: vocabulary columns the metric reads.
    """

    component: str
    n_pairs: int
    length: int
    shared: int = 0
    answers: int = 2

    @property
    def live(self) -> int:
        """Positions at which the prompts of a pair can differ."""
        return self.length - self.shared


def block_flops(shape: Shape) -> int:
    """Per token, one block without attention's own products: 24 d² for a GPT-2."""
    return _query_flops(shape) + key_value_flops(shape)


def key_value_flops(shape: Shape) -> int:
    """Per token, the key and value projections of one block."""
    return 2 * shape.d_model * 2 * shape.n_kv_heads * shape.head_dim


def attention_flops(shape: Shape, keys: int) -> int:
    """One query against `keys` keys, all heads: scores and weighted values."""
    return 4 * shape.n_heads * shape.head_dim * keys


def unembed_flops(shape: Shape, columns: int | None = None) -> int:
    """Per position, logits of `columns` tokens (all of them by default)."""
    return 2 * shape.d_model * (shape.vocabulary if columns is None else columns)


def forward_flops(shape: Shape, length: int, logits: int | None = None) -> int:
    """One plain forward of one prompt; logits at all positions, or at the given number of them."""
    blocks = length * block_flops(shape) + attention_flops(shape, _triangle(length))
    return shape.n_layers * blocks + (length if logits is None else logits) * unembed_flops(shape)


def n_sites(shape: Shape, size: SweepSize) -> int:
    """Sites per pair."""
    per_layer = shape.n_heads if size.component == "head_out" else size.length
    return shape.n_layers * per_layer


def naive_flops(shape: Shape, size: SweepSize, logits: int | None = None) -> int:
    """One whole forward per site and pair; `logits` as in `forward_flops`."""
    return size.n_pairs * n_sites(shape, size) * forward_flops(shape, size.length, logits)


def necessary_flops(shape: Shape, size: SweepSize, *, baselines: int = 2) -> int:
    """The minimum with `baselines` unpatched runs per pair: the second (clean beside corrupted)
    runs only the positions where it can differ; each gives one whole row of logits."""
    if size.component == "head_out":
        patched = _head_flops(shape, size)
    else:
        patched = _residual_flops(shape, size)
    return size.n_pairs * (patched + _baseline_flops(shape, size, baselines))


def tight_flops(shape: Shape, size: SweepSize, *, baselines: int = 2) -> int:
    """The bound that nobody need reach: at a residual's first block the queries, keys and values of
    positions after the patch are the unpatched run's too."""
    total = necessary_flops(shape, size, baselines=baselines)
    if size.component == "head_out":
        return total
    query = 2 * shape.d_model * shape.n_heads * shape.head_dim
    later = _triangle(size.live) - size.live
    # In the last block only keys and values run for those positions anyway.
    full = len(_depths(shape, size)) - 1
    saved = later * (full * (query + key_value_flops(shape)) + key_value_flops(shape))
    return total - size.n_pairs * saved


def _depths(shape: Shape, size: SweepSize) -> list[int]:
    """Blocks that run after each layer's site; a site after the last block runs none."""
    after = 1 if size.component == "resid_post" else 0
    return list(range(shape.n_layers - after, 0, -1))


def _residual_flops(shape: Shape, size: SweepSize) -> int:
    depths = _depths(shape, size)
    starts = range(size.shared, size.length)
    # Full blocks: every position from the patch on.
    per_block = _triangle(size.live) * block_flops(shape) + sum(
        attention_flops(shape, query + 1) for start in starts for query in range(start, size.length)
    )
    full = sum(depth - 1 for depth in depths)
    # Last block: keys and values of those positions, everything else for the final query.
    last = _triangle(size.live) * key_value_flops(shape) + size.live * (
        _query_flops(shape) + attention_flops(shape, size.length)
    )
    logits = len(depths) * size.live * unembed_flops(shape, size.answers)
    if size.component == "resid_post":  # after the last block only the last position counts
        logits += unembed_flops(shape, size.answers)
    return full * per_block + len(depths) * last + logits


def _head_flops(shape: Shape, size: SweepSize) -> int:
    """A head's output at the last position: its own block from the output projection on, then one
    token through the blocks above."""
    head_write = 2 * shape.head_dim * shape.d_model
    mlp = shape.mlp_matrices * 2 * shape.d_model * shape.d_mlp
    token = block_flops(shape) + attention_flops(shape, size.length)
    total = 0
    for layer in range(shape.n_layers):
        above = shape.n_layers - 1 - layer
        total += head_write + mlp + above * token + unembed_flops(shape, size.answers)
    return shape.n_heads * total


def _baseline_flops(shape: Shape, size: SweepSize, baselines: int) -> int:
    total = 0
    for start in [0, *[size.shared] * (baselines - 1)][:baselines]:
        keys = _triangle(size.length) - _triangle(start)
        blocks = (size.length - start) * block_flops(shape) + attention_flops(shape, keys)
        total += shape.n_layers * blocks + unembed_flops(shape)
    return total


def _query_flops(shape: Shape) -> int:
    """Per token, what a block does besides keys and values: query, output projection, MLP."""
    heads = shape.n_heads * shape.head_dim
    mlp = shape.mlp_matrices * 2 * shape.d_model * shape.d_mlp
    return 2 * shape.d_model * heads + 2 * heads * shape.d_model + mlp


def _triangle(n: int) -> int:
    return n * (n + 1) // 2
