"""The embedded reference models: small Llama models trained from scratch in a few CPU minutes."""

from interpflow.models.reference.release import train_reference

__all__ = ["train_reference"]
