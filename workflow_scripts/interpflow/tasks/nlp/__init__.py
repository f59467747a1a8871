"""Small language tasks with scorers: facts, words, arithmetic, formats, patterns."""
