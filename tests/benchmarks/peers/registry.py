"""Which implementation answers which work, by name; a library is imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from tests.benchmarks.job import Job, Place
from tests.benchmarks.works import DumpWork, LinearWork, ScoringWork, SkipWork, SweepWork, Work

# Sites that a loop of whole forwards runs of a sweep; its time is scaled to all of them.
SAMPLED_SITES = 12

SWEEPS: dict[str, tuple[str, dict]] = {
    "interpflow": ("interpflow_engine:sweep", {"check": "off"}),
    "interpflow, checked": ("interpflow_engine:sweep", {}),
    "interpflow, oracle": ("interpflow_engine:sweep", {"check": "off", "oracle": True}),
    "plain hooks": ("plain_hooks:sweep", {"n_sites": 16}),
    "hooks, last logits": ("plain_hooks:sweep", {"n_sites": SAMPLED_SITES, "last_only": True}),
    "TransformerLens": ("transformer_lens_bridge:sweep", {"n_sites": SAMPLED_SITES}),
    "nnsight": ("nnsight_traces:sweep", {"n_sites": SAMPLED_SITES}),
    "pyvene": ("pyvene_sources:sweep", {"n_sites": SAMPLED_SITES}),
    "linears": ("linears:sweep_linears", {}),
}
DUMPS: dict[str, tuple[str, dict]] = {
    "interpflow": ("interpflow_dump:dump", {}),
    "plain forward": ("plain_dumps:plain_forward", {}),
    "transformers + torch.save": ("plain_dumps:hidden_states", {}),
    "TransformerLens + torch.save": ("library_dumps:transformer_lens", {}),
    "nnsight + torch.save": ("library_dumps:nnsight", {}),
}
SCORINGS: dict[str, tuple[str, dict]] = {
    "interpflow": ("interpflow_scoring:score", {}),
    "lm-evaluation-harness": ("harness:score", {}),
    "sorted loop": ("sorted_loop:score", {}),
}
SKIPS: dict[str, tuple[str, dict]] = {
    "interpflow": ("layer_skips:plans", {}),
    "interpflow, model's linears": ("layer_skips:plans", {"fast": False}),
    "plain hooks": ("layer_skips:hooks", {}),
    "hooks, last logits": ("layer_skips:hooks", {"last_only": True}),
}
LINEARS: dict[str, tuple[str, dict]] = {"linears": ("linears:linears", {})}
REFERENCE = {
    SweepWork: "plain hooks",
    DumpWork: "transformers + torch.save",
    ScoringWork: "sorted loop",
    LinearWork: "linears",
    SkipWork: "plain hooks",
}


def implementations(work: Work) -> dict[str, tuple[str, dict]]:
    """Name -> (module:function, options) of all that can do this work."""
    tables = {
        SweepWork: SWEEPS,
        DumpWork: DUMPS,
        ScoringWork: SCORINGS,
        LinearWork: LINEARS,
        SkipWork: SKIPS,
    }
    return tables[type(work)]


def prepared(name: str, work: Work, place: Place, options: dict) -> Job:
    """Load the implementation and the model; nothing is timed yet."""
    target, defaults = implementations(work)[name]
    module, function = target.split(":")
    build: Callable[..., Job] = getattr(import_module(f"{__package__}.{module}"), function)
    return build(work, place, **{**defaults, **options})
