"""What the figures depend on: processor, cores, versions. No date and no name of the machine."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch",
    "transformers",
    "transformer-lens",
    "nnsight",
    "pyvene",
    "lm-eval",
    "numpy",
    "safetensors",
)
CPUINFO = Path("/proc/cpuinfo")


def machine(device: str = "cpu") -> dict[str, str | int]:
    """Processor model, its cores and vector instructions, operating system, and the GPU if used."""
    text = CPUINFO.read_text() if CPUINFO.exists() else ""
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.M))
    flags = fields.get("flags", "").split()
    vectors = next((v for v in ("avx512f", "avx2", "avx") if v in flags), "")
    found: dict[str, str | int] = {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count() or 0,
        "vectors": vectors,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """Installed versions of what is timed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
