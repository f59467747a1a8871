"""Where models run."""

from __future__ import annotations

from interpflow.errors import UserError


def check_device(device: str, where: str) -> None:
    """Raise UserError for a CUDA device that is not there."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"the device {device!r} is not available",
            where=where,
            remedy="use device 'cpu', or run where a CUDA device is visible",
        )
