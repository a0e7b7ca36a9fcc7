"""What a message costs, beside those who do the same work: `python -m benchmarks --help`."""
