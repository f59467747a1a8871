"""Message Batches: a journal that survives a kill, and questions answered by them."""
