"""What an implementation hands to the worker: parts to time, and the numbers they gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """One step of a round. Its time counts `scale` times: over 1 where only a sample is run."""

    name: str
    run: Callable[[], object]
    scale: float = 1.0


@dataclass(frozen=True)
class Job:
    """`parts` run in order in every round; `values` reads the result of the last round.

    note: what a reader of the table must know, such as how many sites were run.
    facts: numbers beside the time (bytes, milliseconds), read after the last round.
    """

    parts: list[Part]
    values: Callable[[], np.ndarray]
    note: str = ""
    facts: Callable[[], dict[str, Any]] = field(default=dict)


@dataclass(frozen=True)
class Place:
    """Where the work runs."""

    directory: str
    device: str = "cpu"
    dtype: str = "float32"
