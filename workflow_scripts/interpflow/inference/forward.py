"""Forward passes that give next-token logits at every inner node of an answer tree.

Two ways with the same result. "tree": the prompt is run once, then all inner nodes in one more
forward over its keys and values, each node seeing the prompt and its own ancestors (tree
attention: Miao et al. 2023, SpecInfer). "rows": one row of prompt and path per tip of the tree,
for models whose cache or mask does not allow the first; `tree_is_exact` finds out.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch

from interpflow.errors import UserError
from interpflow.inference.answer_trie import AnswerTrie, build_trie
from interpflow.inference.batching import pad_right

LOGGER = logging.getLogger(__name__)

# Difference of log-probabilities (nats) that rounding may explain on the probe. A wrong mask or
# position moves them by far more in a trained model; float32 agrees to about 1e-5.
PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
# Two lengths, so that padding is tested; branches at two depths, so that ancestry is.
PROBE_PROMPTS = ((1, 5, 3, 7, 2), (4, 6, 1))
PROBE_ANSWERS = ((2, 1), (2, 3, 1), (2, 3, 4), (5, 1), (6,))


def logits_at(model: Any, positions: torch.Tensor, **inputs: Any) -> tuple[torch.Tensor, Any]:
    """Run the model; next-token logits at `positions` [batch, kept], and the whole output.

    Logits are [batch, kept, vocabulary] float32. Only the kept positions go through the
    vocabulary head: the model's own, with whatever it does to the logits afterwards (scaling,
    capping). Where the model has no head module, all are computed and then selected.
    """
    reached = False

    def keep(_module: Any, args: tuple) -> tuple:
        nonlocal reached
        reached = True
        return (_select(args[0], positions), *args[1:])

    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(keep) if head is not None else None
    try:
        output = model(**inputs)
    finally:
        if handle is not None:
            handle.remove()
    logits = output.logits if reached else _select(output.logits, positions)
    return logits.float(), output


def tree_logits(
    model: Any, prompts: Sequence[Sequence[int]], trie: AnswerTrie
) -> tuple[torch.Tensor, int]:
    """Logits [prompt, node, vocabulary] float32 with each prompt run once; and tokens run."""
    device = model.get_input_embeddings().weight.device
    ids = pad_right(prompts, 0, device)
    rows, width = ids.shape
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    root, output = logits_at(model, lengths[:, None] - 1, input_ids=ids, use_cache=trie.n_inner > 0)
    if not trie.n_inner:
        return root, rows * width
    depths = torch.tensor(trie.depths[1:], device=device)
    nodes = torch.tensor(trie.tokens[1:], device=device).expand(rows, -1)
    in_prompt = torch.arange(width, device=device)[None, None] < lengths[:, None, None]
    visible = torch.cat(
        [
            in_prompt.expand(rows, trie.n_inner, width),
            trie.ancestry().to(device).expand(rows, -1, -1),
        ],
        dim=2,
    )
    # Additive, because eager attention adds its mask; every implementation takes this form.
    mask = torch.zeros(visible.shape, dtype=model.dtype, device=device)
    mask = mask.masked_fill(~visible, torch.finfo(model.dtype).min)
    everywhere = torch.arange(trie.n_inner, device=device).expand(rows, -1)
    inner, _ = logits_at(
        model,
        everywhere,
        input_ids=nodes,
        position_ids=lengths[:, None] + depths[None] - 1,
        attention_mask=mask[:, None],
        past_key_values=output.past_key_values,
        use_cache=True,
    )
    return torch.cat([root, inner], dim=1), rows * (width + trie.n_inner)


def row_logits(
    model: Any, prompts: Sequence[Sequence[int]], trie: AnswerTrie
) -> tuple[torch.Tensor, int]:
    """Logits as `tree_logits` gives them, from one row of prompt and path per tip of the tree.

    Neither cache nor mask nor positions are used, so this holds for every causal model.
    """
    device = model.get_input_embeddings().weight.device
    tips = trie.tips()
    paths = {tip: trie.path_to(tip) for tip in tips}
    longest = max(len(path) for path in paths.values())
    sequences = [
        [*prompt, *[trie.tokens[node] for node in paths[tip]]] for prompt in prompts for tip in tips
    ]
    ids = pad_right(sequences, 0, device)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    last = last.repeat_interleave(len(tips))
    kept = (last[:, None] + torch.arange(longest + 1, device=device)).clamp(max=ids.shape[1] - 1)
    logits, _ = logits_at(model, kept, input_ids=ids, use_cache=False)
    logits = logits.view(len(prompts), len(tips), longest + 1, -1)
    place = {
        node: (index, depth + 1)
        for index, tip in enumerate(tips)
        for depth, node in enumerate(paths[tip])
    }
    place[0] = (0, 0)
    order = [place[node] for node in range(len(trie.tokens))]
    chosen = logits[:, [tip for tip, _ in order], [depth for _, depth in order]]
    return chosen, ids.numel()


def attention_window(model: Any) -> int | None:
    """The shortest span of positions that any layer of the model is limited to, or None."""
    config = model.config.get_text_config()
    spans = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((int(span) for span in spans if span), default=None)


def tree_is_exact(model: Any) -> bool:
    """Whether `tree_logits` equals `row_logits` on a small probe; the reason is logged if not.

    Models with recurrent state, with biases by distance built from their own mask, or without
    position ids are found here. The probe is shorter than any window: see `attention_window`.
    """
    accepted = inspect.signature(model.forward).parameters
    needed = {"position_ids", "attention_mask", "past_key_values", "use_cache"}
    if not needed <= set(accepted):
        LOGGER.info("answers are scored by rows: the model takes no position ids or no cache")
        return False
    trie = build_trie(PROBE_ANSWERS, [str(ids) for ids in PROBE_ANSWERS])
    vocabulary = model.config.get_text_config().vocab_size
    if vocabulary <= max(max(prompt) for prompt in PROBE_PROMPTS):
        return False
    try:
        fast, _ = tree_logits(model, PROBE_PROMPTS, trie)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        LOGGER.info("answers are scored by rows: the model does not run a tree over its cache")
        return False
    sure, _ = row_logits(model, PROBE_PROMPTS, trie)
    if fast.shape != sure.shape:
        return False
    gap = (fast.log_softmax(-1) - sure.log_softmax(-1)).abs().max().item()
    exact = gap <= PROBE_TOLERANCE.get(model.dtype, 1e-3)
    if not exact:
        LOGGER.info("answers are scored by rows: a tree over the cache is off by %.2g nats", gap)
    return exact


def check_fits(model: Any, longest: int) -> None:
    """Raise UserError when prompt and answer are longer than the model's positions."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and longest > limit:
        raise UserError(
            f"a prompt and its answer have {longest} tokens, the model has {limit} positions",
            remedy="shorten the prompts, or choose a model with a longer context",
        )


def _select(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    at = positions.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1])
    return states.gather(1, at)
