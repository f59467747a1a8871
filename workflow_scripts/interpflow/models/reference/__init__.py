"""The embedded reference models: small models trained from scratch in a few CPU minutes.

Llama decoders that count or solve word problems, and a classifier that scores answers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from interpflow.models.reference import release
from interpflow.models.reference.reward_recipe import REWARD_NAME
from interpflow.models.reference.reward_release import train_reward_reference

__all__ = ["train_reference"]


def train_reference(
    name: str, seed: int, out_dir: Path | str, progress: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train a reference model from scratch and write its Hugging Face directory.

    Raises UserError for an unknown name. Returns the content of its training.json.
    """
    if name == REWARD_NAME:
        return train_reward_reference(seed, out_dir, progress)
    return release.train_reference(name, seed, out_dir, progress)
