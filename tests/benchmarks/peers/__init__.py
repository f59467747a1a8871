"""One file per library or way: each answers the same work, by its own documented means."""
