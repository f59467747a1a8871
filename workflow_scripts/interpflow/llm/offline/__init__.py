"""Algorithms that do a role's job on items that a machine can check: no model, no key, no cost."""
