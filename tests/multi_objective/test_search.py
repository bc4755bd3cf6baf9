"""Scores of configurations, and why the winner is looked at again on seeds of its own."""

import jax
import numpy as np

from alignment import multi_objective as mo

ZERO = np.zeros(2, np.float32)


def test_a_score_never_falls_when_a_run_finds_another_point():
    fronts = np.random.default_rng(0).random((5, 3, 6, 2)).astype(np.float32)
    valid = np.random.default_rng(1).random((5, 3, 6)) < 0.5
    before = mo.mean_hypervolume(fronts, valid, ZERO)
    assert (mo.mean_hypervolume(fronts, np.ones_like(valid), ZERO) >= before - 1e-6).all()


def test_the_winner_of_a_search_looks_better_on_the_seeds_it_was_chosen_by():
    """Ten configurations that are all the same, three seeds of search and ten of test: the gap is selection alone."""

    def front(rng):
        angle = rng.uniform(0, np.pi / 2, size=4)
        return (1 + 0.3 * rng.normal(size=(4, 1))) * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    score = jax.jit(mo.mean_hypervolume)
    gaps = []
    for repetition in range(30):
        rng = np.random.default_rng(repetition)
        search = np.float32([[front(rng) for _ in range(3)] for _ in range(10)])
        test = np.float32([[front(rng) for _ in range(10)] for _ in range(10)])
        scores, tested = score(search, np.ones((10, 3, 4), bool), ZERO), score(test, np.ones((10, 10, 4), bool), ZERO)
        best = int(np.argmax(scores))
        gaps.append(float(scores[best] - tested[best]))
    assert np.mean(gaps) > 3 * np.std(gaps) / np.sqrt(len(gaps))
