"""Which parts carry an effect: attribution, paths, joint patches, and circuits of what is kept."""
