"""The studies: each composes the rooms above into one question and its answer."""
