"""What restores the answer: clean states patched into damaged prompts, and back."""
