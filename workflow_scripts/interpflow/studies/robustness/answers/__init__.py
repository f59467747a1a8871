"""What a model says to each prompt: one pass, and what its answers are worth."""
