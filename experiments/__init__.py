"""Scripts that read from top to bottom; run them as `python -m experiments.NAME`."""
