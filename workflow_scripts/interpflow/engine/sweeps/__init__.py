"""Pairs x layers x positions: planned, run at the least computation, gated and audited."""
