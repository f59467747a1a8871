"""Next-token states and logits at every inner node of an answer tree, in the cheapest exact way.

"tree": see `tree_forward`. "rows": one row of prompt and path per tip of the tree, with the model's
own attention, for models that do not allow the first. `tree_is_exact` and `sharing_is_exact` find
out by comparing on a small probe.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from interpflow.engine.model import rotates_by_length
from interpflow.engine.passes.attention import StopForward
from interpflow.errors import UserError
from interpflow.inference.answer_trie import AnswerTrie, build_trie
from interpflow.inference.batching import pad_right
from interpflow.inference.readout import Readout
from interpflow.inference.tree_forward import Prefix, TreeForward

LOGGER = logging.getLogger(__name__)

# Difference of log-probabilities (nats) that rounding may explain on the probe; float32 agrees to
# about 1e-5.
PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
# In float32 the difference must also be this much smaller than what another prompt with the same
# last token would change: a model that hardly looks back would hide a wrong mask.
PROBE_SHARE = 0.02
FLOAT32_NOISE = 2e-5
# The beginning (1, 5, 3) of all, two stems, suffixes of several lengths, so that padding is tested;
# branches of the answers at two depths, so that ancestry is.
PROBE_PREFIX = (1, 5, 3)
PROBE_STEMS = ((7, 2, 4, 8), (6, 3))
PROBE_SUFFIXES = ((5, 3, 7, 2), (4, 6, 1, 2), (6, 1, 7, 2, 2), (3,))
PROBE_STEM_OF = (0, 0, 1, 1)
PROBE_ANSWERS = ((2, 1), (2, 3, 1), (2, 3, 4), (5, 1), (6,))
PROBE_VOCABULARY = 9


def logits_at(model: Any, positions: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
    """Run the model; next-token logits at `positions` [batch, kept] and what its head was given.

    Logits are [batch, kept, vocabulary] float32, states [batch, kept, d]. Only the kept positions
    go through the vocabulary head: the model's own, with whatever it does to the logits afterwards
    (scaling, capping). Where the model has no head module, all are computed and then selected, and
    the states are None.
    """
    given: list[Tensor] = []

    def keep(_module: Any, args: tuple) -> tuple:
        given.append(_select(args[0], positions))
        return (given[-1], *args[1:])

    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(keep) if head is not None else None
    try:
        output = model(**inputs)
    finally:
        if handle is not None:
            handle.remove()
    if given:
        return output.logits.float(), given[0]
    return _select(output.logits, positions).float(), None


def row_logits(
    model: Any, prompts: Sequence[Sequence[int]], trie: AnswerTrie
) -> tuple[Tensor, Tensor | None, int]:
    """Logits [prompt, node, vocabulary] float32 from one row of prompt and path per tip of the
    tree, the states [prompt, node, d] before the head (or None), and the tokens run.

    Neither cache nor mask nor positions are used, so this holds for every causal model.
    """
    ids, kept = _rows(model, prompts, trie)
    logits, states = logits_at(model, kept, input_ids=ids, use_cache=False)
    by_node = _by_node(states, trie) if states is not None else None
    return _by_node(logits, trie), by_node, ids.numel()


def row_states(
    model: Any, prompts: Sequence[Sequence[int]], trie: AnswerTrie
) -> tuple[Tensor, int]:
    """The states of `row_logits`, and the tokens run; the vocabulary head is not."""
    ids, kept = _rows(model, prompts, trie)
    given: list[Tensor] = []

    def stop(_module: Any, args: tuple) -> None:
        given.append(_select(args[0], kept))
        raise StopForward

    handle = model.get_output_embeddings().register_forward_pre_hook(stop)
    try:
        with suppress(StopForward):
            model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return _by_node(given[0], trie), ids.numel()


def _rows(model: Any, prompts: Sequence[Sequence[int]], trie: AnswerTrie) -> tuple[Tensor, Tensor]:
    """Ids [prompt × tip, position] and the positions of each row's nodes, root first."""
    device = model.get_input_embeddings().weight.device
    tips = trie.tips()
    paths = [[trie.tokens[node] for node in trie.path_to(tip)] for tip in tips]
    ids = pad_right([[*prompt, *path] for prompt in prompts for path in paths], 0, device)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    last = last.repeat_interleave(len(tips))
    depths = torch.arange(max(map(len, paths)) + 1, device=device)
    return ids, (last[:, None] + depths).clamp(max=ids.shape[1] - 1)


def _by_node(found: Tensor, trie: AnswerTrie) -> Tensor:
    """[prompt × tip, depth, ...] -> [prompt, node, ...]; a node is taken from any of its tips."""
    place = {0: (0, 0)}
    for row, tip in enumerate(trie.tips()):
        place.update({node: (row, at + 1) for at, node in enumerate(trie.path_to(tip))})
    order = [place[node] for node in range(len(trie.tokens))]
    found = found.view(-1, len(trie.tips()), *found.shape[1:])
    return found[:, [row for row, _ in order], [at for _, at in order]]


def attention_window(model: Any) -> int | None:
    """The shortest span of positions that any layer of the model is limited to, or None."""
    config = model.config.get_text_config()
    spans = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((int(span) for span in spans if span), default=None)


def find_tree(model: Any, readout: Readout) -> TreeForward | None:
    """A way of running answer trees that is proven to be right, or None; the reason is logged."""
    try:
        tree = TreeForward(model)
    except _FAILURES as error:
        LOGGER.info("answers are scored by rows: %s", error)
        return None
    if tree_is_exact(tree, readout):
        return tree
    if tree.last_block is None:
        return None
    tree.last_block = None  # run whole, perhaps the rest is right
    return tree if tree_is_exact(tree, readout) else None


def tree_is_exact(tree: TreeForward, readout: Readout) -> bool:
    """Whether trees equal rows on a small probe; the reason is logged if not.

    Models with recurrent state or with biases by distance of their own are found here. The probe
    is shorter than most windows: see `TreeForward.windows_are_known`.
    """
    return _agrees(tree, readout, "a tree of answers", share=False)


def sharing_is_exact(tree: TreeForward, readout: Readout) -> bool:
    """Whether keys and values of shared beginnings give what whole prompts give, on the probe."""
    return _agrees(tree, readout, "a shared beginning", share=True)


def packing_is_exact(tree: TreeForward, readout: Readout) -> bool:
    """Whether rows that stand in one another's place give what each gives alone, on the probe."""
    return _agrees(tree, readout, "packing", share=False, pack=True)


def readout_is_exact(model: Any, readout: Readout) -> bool:
    """Whether logits made from states in tiles equal the model's own, on the probe."""
    if readout.vocabulary < PROBE_VOCABULARY:
        return False
    logits, states, _ = row_logits(model, PROBE_SUFFIXES, _probe_trie())
    if states is None:
        return False
    tolerance = PROBE_TOLERANCE.get(model.dtype, 1e-3)
    if model.dtype == torch.float32:
        tolerance = FLOAT32_NOISE * max(1.0, logits.abs().max().item())
    return readout.prove(states.flatten(0, 1), logits.flatten(0, 1), tolerance)


def check_fits(model: Any, longest: int) -> None:
    """Raise UserError when prompt and answer are longer than the model's positions."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and longest > limit:
        raise UserError(
            f"a prompt and its answer have {longest} tokens, the model has {limit} positions",
            remedy="shorten the prompts, or choose a model with a longer context",
        )


_FAILURES = (
    AttributeError,
    IndexError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _agrees(
    tree: TreeForward, readout: Readout, what: str, *, share: bool, pack: bool = False
) -> bool:
    model = tree.model
    trie = build_trie([[1]], ["1"]) if pack else _probe_trie()
    if readout.vocabulary < PROBE_VOCABULARY:
        LOGGER.info("%s cannot be tried with %d tokens", what, readout.vocabulary)
        return False
    prompts = list(PROBE_SUFFIXES)
    try:
        if pack:
            states, _ = tree.packed_states(PROBE_SUFFIXES)
        elif share:
            prefix = tree.extended(tree.extended(Prefix(), PROBE_PREFIX[:1]), PROBE_PREFIX[1:])
            states, _ = tree.states(PROBE_SUFFIXES, trie, prefix, PROBE_STEMS, PROBE_STEM_OF)
            stems = [PROBE_STEMS[stem] for stem in PROBE_STEM_OF]
            prompts = [(*PROBE_PREFIX, *stem, *own) for stem, own in zip(stems, prompts)]
        else:
            states, _ = tree.states(PROBE_SUFFIXES, trie, Prefix())
    except _FAILURES as error:
        LOGGER.info("%s is not used: %s", what, error)
        return False
    logits, sure, _ = row_logits(model, prompts, trie)
    if sure is None or states.shape != sure.shape:
        return False
    expected = logits.log_softmax(-1)
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    found = readout.read(states.flatten(0, 1), tokens).picked.view(logits.shape)
    gap = (found.log_softmax(-1) - expected).abs().max().item()
    allowed = PROBE_TOLERANCE.get(model.dtype, 1e-3)
    if model.dtype == torch.float32:
        # Rows 0 and 1 differ in what comes before their last token, and in nothing else.
        looks_back = (expected[0] - expected[1]).abs().max().item()
        allowed = min(allowed, max(PROBE_SHARE * looks_back, FLOAT32_NOISE))
    if not gap <= allowed:
        LOGGER.info("%s is not used: it is off by %.2g nats", what, gap)
        return False
    return True


def _probe_trie() -> AnswerTrie:
    return build_trie(PROBE_ANSWERS, [str(ids) for ids in PROBE_ANSWERS])


def check_rotation(model: Any, prompts: Sequence[Sequence[int]], trie: AnswerTrie) -> bool:
    """Whether the model's rotation of these prompts depends on how long they are.

    Raises UserError where it does and the rows to run are not all of one length: the longest of a
    batch would change the others.
    """
    config = model.config.get_text_config()
    depths = {trie.depths[tip] for tip in trie.tips()}
    lengths = {len(prompt) for prompt in prompts}
    longest = max(lengths) + max(depths)
    if not rotates_by_length(model) or longest <= _original_length(config):
        return False
    if len(lengths) > 1 or len(depths) > 1:
        raise UserError(
            f"this model's rotation depends on the longest prompt of a batch beyond "
            f"{_original_length(config)} tokens",
            where=str(config.model_type),
            remedy="score prompts of one length, with answers of one length, at a time",
        )
    return True


def _original_length(config: Any) -> int:
    """Positions up to which a rotation does not depend on the length."""
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    name = "original_max_position_embeddings"
    found = [getattr(config, name, None), *_values(settings, name)]
    known = [int(value) for value in found if value]
    return min(known) if known else int(config.max_position_embeddings)


def _values(settings: Any, name: str) -> list[Any]:
    if not isinstance(settings, dict):
        return []
    inside = [found for part in settings.values() for found in _values(part, name)]
    return [settings.get(name), *inside]


def _select(states: Tensor, positions: Tensor) -> Tensor:
    at = positions.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1])
    return states.gather(1, at)
