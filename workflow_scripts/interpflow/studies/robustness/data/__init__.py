"""Prompts and their variants: made, checked, rewritten."""
