"""pyvene 0.1.8: one intervenable model per layer, source representations handed in, so that the
clean run is not repeated at every site (as documented it is, at twice the cost)."""

# The peers lie in an environment of their own.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyvene
import torch
from torch import Tensor

from tests.benchmarks.job import Job, Place
from tests.benchmarks.peers.plain_hooks import load_model, logit_difference, loop_job, tensors
from tests.benchmarks.works import SweepWork

COMPONENTS = {
    "resid_pre": ("block_input", "pos"),
    "resid_post": ("block_output", "pos"),
    "head_out": ("head_attention_value_output", "h.pos"),
}


def sweep(work: SweepWork, place: Place, n_sites: int) -> Job:
    """Per layer one IntervenableModel; per site one forward with the cached source."""
    model = load_model(work, place)
    clean, corrupted, answers = tensors(work, place.device)
    component, unit = COMPONENTS[work.component]
    kept: dict[str, Any] = {}
    layers = range(work.shape.n_layers)
    size = work.shape.head_dim

    def intervenable(representations: list[Any]) -> Any:
        return pyvene.IntervenableModel(pyvene.IntervenableConfig(representations), model)

    @torch.no_grad()
    def sources() -> Tensor:
        # The heads' outputs lie side by side in one state, which is collected whole.
        name = "attention_value_output" if work.component == "head_out" else component
        collected = {"intervention_type": pyvene.CollectIntervention}
        collect = intervenable(
            [pyvene.RepresentationConfig(i, name, "pos", work.length, **collected) for i in layers]
        )
        every = list(range(work.length))
        (_, states), _ = collect({"input_ids": clean}, unit_locations={"base": every})
        kept["states"] = [state.view(work.n_pairs, work.length, -1) for state in states]
        vanilla = {"intervention_type": pyvene.VanillaIntervention}
        kept["models"] = [
            intervenable([pyvene.RepresentationConfig(i, component, unit, 1, **vanilla)])
            for i in layers
        ]
        return logit_difference(model(corrupted, use_cache=False).logits[:, -1], answers)

    @torch.no_grad()
    def patched(sites: Sequence[tuple[int, int]]) -> Tensor:
        values = []
        for layer, at in sites:
            donor = kept["states"][layer]
            if work.component == "head_out":
                source = donor[:, None, -1:, at * size : (at + 1) * size]
                where = [[[at]] * work.n_pairs, [[work.length - 1]] * work.n_pairs]
                locations = {"sources->base": ([where], [where])}
            else:
                source = donor[:, at : at + 1]
                locations = {"sources->base": at}
            _, output = kept["models"][layer](
                {"input_ids": corrupted},
                unit_locations=locations,
                source_representations=source,
                use_cache=False,
            )
            values.append(logit_difference(output.logits[:, -1], answers))
        return torch.stack(values)

    return loop_job(work, sources, patched, work.sample(n_sites))
