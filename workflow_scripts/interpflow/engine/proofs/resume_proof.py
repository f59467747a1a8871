"""Proof of how much of a pass may be left out."""

from __future__ import annotations

from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes.forward import Resume, run_forward
from interpflow.engine.proofs.probe_pass import SMALLEST_UNIT, miss, probe_ids
from interpflow.engine.sites import Site

# Rounding units of the largest logit that leaving out may cost.
UNITS = 64
# What a model raises that cannot be run this way.
CANNOT = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError)


def fastest_path(module: PreTrainedModel, architecture: Architecture) -> str:
    """How much of a pass may be left out: "full" (nothing), "resume" (blocks before the patch),
    "resume+prefix" (also positions before it). Proven by equality with the whole pass."""
    ids = probe_ids(module, architecture)
    length = ids.shape[1]
    layers = range(architecture.n_layers)
    sites = [Site("resid_pre", i) for i in layers]
    sites.append(Site("resid_post", architecture.n_layers - 1))
    try:
        whole = run_forward(module, architecture, ids, capture=sites, keep_keys_values=True)
    except CANNOT:  # recurrent blocks keep no keys and values
        whole = run_forward(module, architecture, ids, capture=sites)
    starts = sorted({0, 1, architecture.n_layers // 2, architecture.n_layers})
    path = "full"
    for name, first in (("resume", 0), ("resume+prefix", length // 2)):
        if first and (whole.keys_values is None or not architecture.takes_position_ids):
            return path
        for start in starts:
            prefix = None
            if first and whole.keys_values is not None:
                prefix = tuple((k[:, :, :first], v[:, :, :first]) for k, v in whole.keys_values)
            residual = whole.states[sites[start]][:, first:] if start else None
            resume = Resume(start, residual, first, prefix)
            try:
                part = run_forward(module, architecture, ids[:, first:], resume=resume)
            except CANNOT:
                return path  # a model that cannot be entered halfway is run whole
            if miss(part.logits, whole.logits[:, first:]) > UNITS:
                return path
        path = name
    return path


def cache_is_exact(module: PreTrainedModel, architecture: Architecture) -> bool:
    """Whether running a prompt's tokens one by one from the keys and values of those before them
    gives the logits of the whole pass, on the probe batch."""
    ids = probe_ids(module, architecture)
    length = ids.shape[1]
    first = length // 2
    expected = run_forward(module, architecture, ids).logits
    try:
        found = run_forward(module, architecture, ids[:, :first], keep_keys_values=True)
        for place in range(first, length):
            if found.keys_values is None:
                return False
            found = run_forward(
                module,
                architecture,
                ids[:, place : place + 1],
                resume=Resume(0, None, place, found.keys_values),
                keep_keys_values=True,
            )
            if not miss(found.logits[:, 0], expected[:, place], smallest=SMALLEST_UNIT) <= UNITS:
                return False
    except CANNOT:
        return False
    return True
