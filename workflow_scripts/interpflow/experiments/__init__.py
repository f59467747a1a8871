"""The store of experiments: every run of a model under a plan, kept once and found by its spec."""
