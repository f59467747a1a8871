"""What is timed against other libraries: `python -m tests.benchmarks.run --help`."""
