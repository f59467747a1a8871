"""The answer tree in one forward: each prompt's own tokens once, then the tree's inner nodes.

Each node sees its prompt and its own ancestors (tree attention: Miao et al. 2023, SpecInfer). The
last block is run only where a next token is scored, and the vocabulary head not at all: what
comes out are the states that the head would be given.
"""

from __future__ import annotations

import inspect
import itertools
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interpflow.engine.passes.attention import StopForward, attention_configs
from interpflow.engine.passes.hooks import replaced_forwards
from interpflow.inference import segment_attention  # noqa: F401 (registers the attention)
from interpflow.inference.answer_trie import AnswerTrie
from interpflow.inference.batching import pad_right
from interpflow.inference.segment_pass import EqualRows, KeysValues, SegmentPass, Stems


class TreeNotSupported(RuntimeError):
    """The model cannot run an answer tree; the message says why."""


@dataclass(frozen=True)
class Prefix:
    """Tokens that stand before every row of a pass, with their keys and values per layer."""

    n_tokens: int = 0
    layers: KeysValues = ()


class TreeForward:
    """Runs answer trees through a model, without its cache.

    Raises TreeNotSupported for a model that takes no position ids or whose attention is not the
    exchangeable one. That the results are right has to be proven: see `forward.tree_is_exact`.
    It does not keep the model alive.
    """

    def __init__(self, model: Any) -> None:
        self._model, self.head = weakref.ref(model), model.get_output_embeddings()
        if "position_ids" not in inspect.signature(model.forward).parameters:
            raise TreeNotSupported("the model takes no position ids")
        if self.head is None:
            raise TreeNotSupported("the model has no vocabulary head of its own")
        self.device = model.get_input_embeddings().weight.device
        self.configs = attention_configs(model)
        probe = SegmentPass(torch.arange(2, device=self.device)[None])
        self._forward(torch.zeros(1, 2, dtype=torch.int64, device=self.device), probe)
        self.n_layers, self.windows = len(probe.modules), probe.windows
        if not self.n_layers:
            raise TreeNotSupported("its attention is not exchangeable")
        self.last_block = _last_block(model, probe.modules[-1])

    @property
    def model(self) -> Any:
        """The model, which has to exist still."""
        model = self._model()
        if model is None:
            raise ReferenceError("the model of this answer tree is gone")
        return model

    def windows_are_known(self) -> bool:
        """Whether each layer that the configuration limits to a window says so when it runs."""
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        if getattr(config, "attention_chunk_size", None):
            return False
        types = getattr(config, "layer_types", None) or ["sliding_attention"] * self.n_layers
        return self.windows.count(window) == types.count("sliding_attention")

    def extended(self, prefix: Prefix, tokens: Sequence[int]) -> Prefix:
        """The prefix continued by `tokens`."""
        layers = self._keys_values([tokens], prefix)
        if prefix.layers:
            layers = [
                (torch.cat([keys, more], dim=2), torch.cat([values, others], dim=2))
                for (keys, values), (more, others) in zip(prefix.layers, layers)
            ]
        else:
            layers = [(keys.contiguous(), values.contiguous()) for keys, values in layers]
        return Prefix(prefix.n_tokens + len(tokens), layers)

    def states(
        self,
        suffixes: Sequence[Sequence[int]],
        trie: AnswerTrie,
        prefix: Prefix,
        stems: Sequence[Sequence[int]] = (),
        stem_of: Sequence[int] = (),
    ) -> tuple[Tensor, int]:
        """States [row, node, d] before the vocabulary head at each inner node; and tokens run.

        Row r is prefix + stems[stem_of[r]] + suffixes[r]; suffixes have at least one token.
        """
        n_tokens = sum(map(len, stems)) and len(stems) * max(map(len, stems))
        before, stem_lengths = None, torch.zeros(len(suffixes), dtype=torch.int64)
        if stems:
            of = torch.tensor(stem_of)
            stem_lengths = torch.tensor([len(stem) for stem in stems])[of]
            layers = self._keys_values(stems, prefix)
            before = Stems(
                layers, of.to(self.device), stem_lengths.to(self.device), prefix.n_tokens
            )
        ids = pad_right(suffixes, 0, self.device)
        lengths = torch.tensor([len(suffix) for suffix in suffixes], device=self.device)
        start = stem_lengths.to(self.device)[:, None] + prefix.n_tokens
        order = torch.arange(ids.shape[1], device=self.device)
        # Padding repeats the last position: a later one might not exist.
        positions = start + torch.minimum(order, lengths[:, None] - 1)
        places, visible = lengths[:, None] - 1, None
        if trie.n_inner:
            visible = _tree_visible(trie, lengths, ids.shape[1])
            nodes = torch.arange(trie.n_inner, device=self.device).expand(len(ids), -1)
            places = torch.cat([places, nodes + ids.shape[1]], dim=1)
            tokens = torch.tensor(trie.tokens[1:], device=self.device)
            depths = torch.tensor(trie.depths[1:], device=self.device)
            ids = torch.cat([ids, tokens.expand(len(ids), -1)], dim=1)
            positions = torch.cat([positions, start + lengths[:, None] + depths - 1], dim=1)
        run = SegmentPass(positions, visible, prefix.layers, before)
        found = self._forward(ids, run, places)
        assert found is not None
        return found, n_tokens + ids.numel()

    def packed_states(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, int]:
        """States [row, 1, d] before the vocabulary head at the end of each row; and tokens run.

        Nothing is run for padding. Rows of equal length have to stand side by side, and no row may
        be longer than a window of the model.
        """
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.tensor([list(itertools.chain.from_iterable(rows))], device=self.device)
        positions = torch.cat([torch.arange(n) for n in lengths.tolist()])[None]
        ends = (lengths.cumsum(0) - 1)[None].to(self.device)
        run = SegmentPass(positions.to(self.device), packed=_equal_rows(lengths.tolist()))
        found = self._forward(ids, run, ends)
        assert found is not None
        return found.transpose(0, 1), ids.numel()

    def _keys_values(self, rows: Sequence[Sequence[int]], prefix: Prefix) -> KeysValues:
        """Keys and values of rows that continue the prefix; the last block goes no further."""
        ids = pad_right(rows, 0, self.device)
        positions = torch.arange(ids.shape[1], device=self.device).expand(ids.shape)
        run = SegmentPass(
            positions + prefix.n_tokens,
            shared=prefix.layers,
            keep=True,
            stop_layer=self.n_layers - 1,
        )
        self._forward(ids, run)
        return run.kept

    def _forward(
        self, ids: Tensor, run: SegmentPass, places: Tensor | None = None
    ) -> Tensor | None:
        """Run the model up to its head; what the head would be given at `places` [row, n]."""
        given: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple) -> None:
            given.append(args[0])
            raise StopForward

        with ExitStack() as stack:
            stack.callback(self.head.register_forward_pre_hook(stop).remove)
            stack.enter_context(run.active(self.configs))
            if places is not None and self.last_block is not None:
                stack.enter_context(_only_at(self.last_block, places, run, self.n_layers - 1))
            with suppress(StopForward):
                self.model(
                    input_ids=ids,
                    position_ids=run.positions,
                    attention_mask=torch.ones_like(ids),
                    use_cache=False,
                )
        if places is None:
            return None
        if not given:
            raise TreeNotSupported("the model does not reach its vocabulary head")
        states = given[0].reshape(*ids.shape, -1)
        return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


def _equal_rows(lengths: Sequence[int]) -> list[EqualRows]:
    found, start, first = [], 0, 0
    for length, group in itertools.groupby(lengths):
        n = len(list(group))
        found.append(EqualRows(start, first, n, length))
        start, first = start + n * length, first + n
    return found


def _tree_visible(trie: AnswerTrie, lengths: Tensor, width: int) -> Tensor:
    """bool [row, place, place] for `width` places of prompt, then the tree's inner nodes."""
    rows, total, device = len(lengths), width + trie.n_inner, lengths.device
    visible = torch.zeros(rows, total, total, dtype=torch.bool, device=device)
    order = torch.arange(width, device=device)
    visible[:, :width, :width] = order[None, :] <= order[:, None]
    visible[:, width:, :width] = (order < lengths[:, None])[:, None]
    visible[:, width:, width:] = trie.ancestry().to(device)
    return visible


def _last_block(model: nn.Module, attention: nn.Module) -> nn.Module | None:
    """The last of the modules in a list that holds the attention that was called last."""
    for part in model.modules():
        if isinstance(part, nn.ModuleList) and len(part):
            last = part[-1]
            if any(inside is attention for inside in last.modules()):
                return last
    return None


@contextmanager
def _only_at(block: nn.Module, places: Tensor, run: SegmentPass, layer: int) -> Iterator[None]:
    """Let the last block compute keys everywhere, and anything after them at `places` [row, n]
    alone; its output is 0 elsewhere."""
    former, width = block.forward, run.positions.shape[1]
    run.stop_layer = layer

    def forward(*args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        try:
            former(*args, **kwargs)
        except StopForward:
            run.queries = places
        output = former(
            *[_gathered(value, places, width) for value in args],
            **{name: _gathered(value, places, width) for name, value in kwargs.items()},
        )
        few = output if isinstance(output, Tensor) else output[0]
        whole = states.new_zeros(states.shape)
        whole.scatter_(1, places[:, :, None].expand(few.shape), few)
        return whole if isinstance(output, Tensor) else (whole, *output[1:])

    with replaced_forwards({block: forward}):
        yield


def _gathered(value: Any, places: Tensor, width: int) -> Any:
    """An argument of a block at some places of each row; anything without places as it is.

    The axis of places follows from the number of axes alone: a size may be equal by chance.
    """
    if isinstance(value, tuple):
        return tuple(_gathered(part, places, width) for part in value)
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    rows, n = places.shape
    if value.ndim == 1 or (value.ndim == 2 and value.is_floating_point()):
        value = value[None]
    axis = 2 if value.ndim == 4 else 1
    if value.ndim > 4 or value.shape[axis] != width or value.shape[0] not in (1, rows):
        raise TreeNotSupported(f"the last block takes a tensor {tuple(value.shape)}")
    value = value.expand(rows, *value.shape[1:])
    shape = [rows, *[1] * (value.ndim - 1)]
    shape[axis] = n
    return value.gather(
        axis, places.view(shape).expand(*value.shape[:axis], n, *value.shape[axis + 1 :])
    )
