"""Configs: `common.py` holds every key with its default, and each method has one short file."""
