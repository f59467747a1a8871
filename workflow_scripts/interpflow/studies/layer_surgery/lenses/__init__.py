"""Lenses of a model: trained, evaluated on held-out text, and read at the items' answers."""
