"""Perturbations of prompts that keep their meaning, each edit recorded by its characters."""
