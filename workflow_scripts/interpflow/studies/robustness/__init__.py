"""The robustness study: perturbed prompts, what they cost, and what carries the damage."""
