"""Everything between a rollout and its loss: shaping of rewards, advantage estimators, surrogates, penalties, trackers.

Pure functions of named arrays (the vocabulary in `alignment.statistics`), by their public name.
"""

__all__ = []
