"""Measurements: each script prints what it measured, how, and on what. Nothing here is a test."""
