"""Activations on disk: safetensors shards and a Parquet index of what each row is.

From a notebook: `store = interpflow.activations.open(path)`, then
`store.read("resid_post.L3", example_id)`.
"""

from interpflow.activations.plan import WritePlan, plan_store
from interpflow.activations.sites import SiteRecord
from interpflow.activations.store import ActivationStore, open_store
from interpflow.activations.writer import ActivationWriter

open = open_store

__all__ = [
    "ActivationStore",
    "ActivationWriter",
    "SiteRecord",
    "WritePlan",
    "open",
    "open_store",
    "plan_store",
]
