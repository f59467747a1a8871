"""Reading a model: scored answers and greedy text, in batches of bounded size."""
