"""Typed settings, seeds and identities."""
