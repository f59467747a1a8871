"""Estimators, intervals, tests and multiplicity control: pure functions of arrays and a seed."""
