"""Step scores as one score, and decoding that follows them."""

import jax.numpy as jnp
import numpy as np
import pytest

from alignment.rewards import process

MODES = (process.step_min, process.step_product, process.step_last, process.step_mean, process.step_sum)
each = pytest.mark.parametrize("mode", MODES, ids=lambda f: f.__name__)
SCORES = jnp.array([[0.9, jnp.nan, 0.5, 0.8], [jnp.nan, 0.7, jnp.nan, jnp.nan]])
MASK = jnp.array([[True, False, True, True], [False, True, False, False]])


def test_values_by_hand():
    expected = ([0.5, 0.36, 0.8, 2.2 / 3, 2.2], [0.7] * 5)
    np.testing.assert_allclose(np.stack([m(SCORES, MASK) for m in MODES]), np.transpose(expected), rtol=1e-5)


@each
def test_a_solution_without_steps_has_the_worst_score(mode):
    got = mode(jnp.full((1, 3), jnp.nan), jnp.zeros((1, 3), bool), worst=-2.0)
    np.testing.assert_array_equal(got, [-2.0])


def test_of_probabilities_the_product_is_least_and_the_mean_most():
    rng = np.random.default_rng(0)
    scores, mask = (
        jnp.asarray(rng.random((50, 6)), jnp.float32),
        jnp.asarray(rng.random((50, 6)) < 0.7).at[:, 0].set(True),
    )
    product, least, mean = (f(scores, mask) for f in (process.step_product, process.step_min, process.step_mean))
    assert (product <= least + 1e-6).all() and (least <= mean + 1e-6).all()


def test_only_product_and_sum_see_a_step_repeated():
    once, twice = SCORES[:, [0, 2, 3]], jnp.tile(SCORES[:, [0, 2, 3]], 2)
    masks = jnp.ones((2, 3), bool), jnp.ones((2, 6), bool)
    for mode in MODES:
        same = np.allclose(mode(once, masks[0])[0], mode(twice, masks[1])[0], rtol=1e-5)
        assert same == (mode not in (process.step_product, process.step_sum)), mode.__name__


def test_guided_decoding_takes_the_best_proposal_and_stops_at_the_answer():
    rng = np.random.default_rng(0)

    def propose(prompt, steps, count):
        return [f"{len(steps)}:{rng.integers(100)}" for _ in range(count)]

    def score(prompt, partial):
        return np.array([sum(int(s.split(":")[1]) for s in steps) for steps in partial])

    def finished(steps):
        return len(steps) == 4

    def value(candidates):
        return np.mean([score("", [process.guided_solution("", propose, score, finished, candidates=candidates)])
                        for _ in range(30)])  # fmt: skip

    one, many = value(1), value(8)
    assert 4 * 35 < one < 4 * 65 and many > 4 * 80  # the mean of one draw, and of the best of eight
    assert len(process.guided_solution("", propose, score, lambda steps: False, max_steps=3)) == 3


def test_proposals_or_scores_of_a_wrong_number_are_errors():
    with pytest.raises(ValueError, match="2 steps in place of 5"):
        process.guided_solution("", lambda *a: ["a", "b"], None, lambda s: False)
    with pytest.raises(ValueError, match="2 finite numbers"):
        process.guided_solution(
            "", lambda *a: ["a", "b"], lambda *a: np.array([1.0, np.nan]), lambda s: False, candidates=2
        )
