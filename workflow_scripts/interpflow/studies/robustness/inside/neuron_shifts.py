"""Which neurons the typo moves more than the matched control edit does: a t map with FDR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interpflow.activations.store import ActivationStore
from interpflow.stats.paired_map import PairedMap, paired_t_map
from interpflow.stats.record import DEGENERATE_VARIANCE
from interpflow.studies.robustness.inside.aligned_words import PlacePairs
from interpflow.studies.robustness.inside.internal_maps import MIN_FAMILIES, TYPO, by_family
from interpflow.studies.robustness.inside.stored_prompts import CONTROL, StoredPrompts, mean_states
from interpflow.tables.schemas import table_schema

COMPONENT = "mlp_act"


def neuron_tables(
    name: str,
    store: ActivationStore,
    prompts: StoredPrompts,
    places: Sequence[PlacePairs],
    primary: str,
    level: float,
) -> list[pa.Table]:
    """Tables `robustness_neurons`, one per place and operator (all typos together, the primary).

    A family's value is the mean change of the activation (variant − clean) by the typo minus that
    by the control edit; false discoveries are controlled over all layers and neurons of a table.
    """
    sites = [site for site in store.sites if store.records[site].component == COMPONENT]
    usual = prompts.usual
    control = usual & (prompts.operators == CONTROL)
    asked = {TYPO: usual & prompts.is_typo, primary: usual & (prompts.operators == primary)}
    found = []
    for pairs in places if sites else ():
        kept = {key: mask for key, mask in asked.items() if mask.any()}
        changes: dict[str, list[NDArray[np.float64]]] = {key: [] for key in kept}
        for site in sites:
            moved = _moved(store, site, len(prompts), pairs)
            for key, mask in kept.items():
                families, _, typo = by_family(prompts, moved, mask)
                changes[key].append(typo - by_family(prompts, moved, control, families)[2])
        widths = [store.records[site].width for site in sites]
        layers = np.repeat([store.records[site].layer for site in sites], widths)
        neurons = np.concatenate([np.arange(width) for width in widths])
        for key, parts in changes.items():
            values = np.concatenate(parts, axis=1)
            if np.isfinite(values).all(axis=1).sum() < MIN_FAMILIES:
                continue
            tested = paired_t_map(values, level=level)
            found.append(_table(name, key, pairs.place, layers, neurons, tested))
    return found


def _moved(store: ActivationStore, site: str, n: int, pairs: PlacePairs) -> NDArray[np.float64]:
    """Mean change [variants, neurons] at a place, NaN where a variant has no such place."""
    changed, clean = (
        mean_states(store, site, rows, pairs.variants, n) for rows in (pairs.changed, pairs.clean)
    )
    return (changed - clean).astype(np.float64)


def _table(
    name: str,
    operator: str,
    place: str,
    layers: NDArray[np.int64],
    neurons: NDArray[np.int64],
    tested: PairedMap,
) -> pa.Table:
    n = len(neurons)
    family = f"exploratory: neurons, {operator} − control at {place}"
    constant = {
        "model": name,
        "operator": operator,
        "place": place,
        "quantity": f"activation: {operator} − control",
        "ci_level": tested.level,
        "test": "paired_t",
        "n_units": tested.n_units,
        "n_clusters": tested.n_clusters,
        "n_dropped": tested.n_dropped,
        "n_resamples": None,
        "seed": None,
        "family": family,
    }
    values = {
        "estimate": tested.mean,
        "ci_low": tested.ci_low,
        "ci_high": tested.ci_high,
        "p_value": tested.p_value,
        "p_adjusted": tested.p_adjusted,
    }
    schema = table_schema("robustness_neurons")
    columns = {key: pa.array([value] * n, schema.field(key).type)
               for key, value in constant.items()}  # fmt: skip
    columns |= {key: pa.array(array, from_pandas=True) for key, array in values.items()}
    columns |= {"layer": pa.array(layers), "neuron": pa.array(neurons)}
    flags = [DEGENERATE_VARIANCE if flat else "" for flat in tested.degenerate]
    columns["flags"] = pa.array(flags)
    return pa.table(columns).select(schema.names).cast(schema)
