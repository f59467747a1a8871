"""Counting the words of a list that belong to a category."""
