"""interpflow takes language models apart: data, behaviour, interventions and their statistics."""

__version__ = "0.1.0"
