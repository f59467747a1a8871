"""Layer surgery: what each block of a model is for, by running the model otherwise."""
