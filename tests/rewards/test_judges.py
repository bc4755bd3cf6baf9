"""Judges that are asked in both orders."""

import jax.numpy as jnp
import numpy as np
import pytest

from alignment.rewards import judges

TRUTH = {"good": 0.9, "fair": 0.5, "poor": 0.2}


def judge(bias):
    def verdicts(prompts, first, second):
        return np.array([0.5 + (TRUTH[a] - TRUTH[b]) / 3 + bias for a, b in zip(first, second, strict=True)])

    return verdicts


FIRST, SECOND = ["good", "poor", "fair"], ["poor", "fair", "fair"]


def test_both_orders_sum_to_one_and_a_bias_of_position_cancels():
    fair, biased = (judges.judge_both_orders(judge(b), ["p"] * 3, FIRST, SECOND) for b in (0.0, 0.2))
    np.testing.assert_allclose(biased, fair, rtol=1e-6)
    np.testing.assert_allclose(fair, judge(0.0)(["p"] * 3, FIRST, SECOND), rtol=1e-6)  # which knows no order
    back = judges.judge_both_orders(judge(0.2), ["p"] * 3, SECOND, FIRST)
    np.testing.assert_allclose(biased + back, 1.0, rtol=1e-6)


def test_a_judge_that_always_says_the_same_is_undecided():
    constant = lambda prompts, first, second: np.full(len(prompts), 0.8)  # noqa: E731
    np.testing.assert_allclose(judges.judge_both_orders(constant, ["p"], ["a"], ["b"]), [0.5])


def test_only_the_two_verdict_tokens_count():
    np.testing.assert_allclose(judges.first_probability(jnp.array([1.0]), jnp.array([1.0])), [0.5])
    np.testing.assert_allclose(judges.first_probability(jnp.array([np.log(3.0)]), jnp.zeros(1)), [0.75], rtol=1e-6)


@pytest.mark.parametrize("verdict", [np.array([0.5, 0.5]), np.array([1.5]), np.array([np.nan])])
def test_verdicts_that_are_no_probabilities_are_an_error(verdict):
    with pytest.raises(ValueError, match="must give 1 probabilities"):
        judges.judge_both_orders(lambda *a: verdict, ["p"], ["a"], ["b"])
