"""The memory of last completions: what comes back, for whom there is nothing, and which of several stays."""

import numpy as np

from alignment.training import last_completions
from alignment.training.rollouts import Rollout


def rollout(*firsts):
    tokens = np.array([[f, f + 1, 0] for f in firsts], np.int32)
    return Rollout(tokens, tokens > 0, -tokens.astype(np.float32))


def test_what_was_remembered_comes_back_and_the_rest_is_unknown():
    state = last_completions.init(5, 3)
    before = [np.array(x) for x in state]
    new = last_completions.remember(state, np.array([4, 1]), rollout(10, 20), np.array([True, True]))
    got, known = last_completions.recall(new, np.array([1, 0, 4]))
    np.testing.assert_array_equal(known, [True, False, True])
    np.testing.assert_array_equal(got.tokens, [[20, 21, 0], [0, 0, 0], [10, 11, 0]])
    np.testing.assert_array_equal(got.logps[0], [-20, -21, 0])
    for kept, was in zip(state, before, strict=True):
        np.testing.assert_array_equal(kept, was)


def test_the_last_valid_of_several_stays():
    state = last_completions.init(3, 3)
    ids, valid = np.array([2, 2, 2, 0]), np.array([True, True, False, False])
    new = last_completions.remember(state, ids, rollout(10, 20, 30, 40), valid)
    np.testing.assert_array_equal(new.tokens, [[0, 0, 0], [0, 0, 0], [20, 21, 0]])
