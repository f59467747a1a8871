"""Measures of a model under layer plans: answers, neutral text, generations."""
