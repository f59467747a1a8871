"""Layer plans: the blocks of a model run as a plan says instead of all in their order."""
