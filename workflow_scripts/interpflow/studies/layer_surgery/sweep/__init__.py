"""Runs of layer plans: the intact model, the sweep, and the store that all runs share."""
