"""A session at work: exploring, registering, running, closing and reporting."""
