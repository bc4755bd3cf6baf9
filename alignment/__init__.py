"""Preference and reward alignment of language models as pure JAX functions.

Start with `alignment.statistics`: its first part documents the names that every kernel's arguments are drawn from.
"""
