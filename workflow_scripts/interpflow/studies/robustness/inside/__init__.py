"""What changes inside: states, attention, neurons and probes, against a matched control."""
