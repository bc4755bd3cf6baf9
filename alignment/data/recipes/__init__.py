"""Recipes: offline steps that make a data set out of another one, one file per method of the literature.

Each has pure functions (seeded by a generator that the caller gives) and a `records` function that turns records into
records that `alignment.data.formats` reads, together with counts of what was kept and what was dropped. The script
`experiments/make_data.py` puts files around them.
"""
