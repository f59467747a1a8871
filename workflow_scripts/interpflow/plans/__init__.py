"""Layer plans: which blocks of a model run, in which order, and what is done to their work."""
