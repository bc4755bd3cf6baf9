"""Rewards of completions: verifiable tasks with exact checks, and judges and ensembles of reward models."""
