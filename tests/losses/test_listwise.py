"""LiPO-lambda against its identities, and against loops over explicit pairs."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import dpo, lipo_lambda

B, K, T = 5, 4, 3
FULL = jnp.ones((B, K, T), bool)


def lists(seed=0, size=K):
    rng = np.random.default_rng(seed)
    policy, reference = (jnp.asarray(rng.normal(size=(B, size)), jnp.float32) * 5 for _ in range(2))
    return policy, reference, jnp.asarray(rng.random((B, size)), jnp.float32)


def naive(policy, reference, labels, beta):
    """One list, by sorting and by loops over ordered pairs, in float64."""
    scores = beta * (np.asarray(policy, np.float64) - np.asarray(reference, np.float64))
    order = np.argsort(-scores, kind="stable")
    rank = np.empty(len(scores))
    rank[order] = 1 + np.arange(len(scores))
    total = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if labels[i] > labels[j]:
                gain = abs(2.0 ** labels[i] - 2.0 ** labels[j])
                discount = abs(1 / np.log(1 + rank[i]) - 1 / np.log(1 + rank[j]))
                total += gain * discount * np.log1p(np.exp(scores[j] - scores[i]))
    return total


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(sizes=st.lists(st.integers(0, K), min_size=B, max_size=B), seed=st.integers(0, 2**16))
def test_equals_explicit_pairs_for_ragged_lists(sizes, seed):
    policy, reference, labels = lists(seed)
    present = np.arange(K) < np.array(sizes)[:, None]
    mask = jnp.asarray(np.repeat(present[..., None], T, axis=-1))
    got = lipo_lambda(*(jnp.where(present, x, jnp.nan) for x in (policy, reference, labels)), mask, beta=0.3)
    expected = [naive(policy[b, :n], reference[b, :n], labels[b, :n], 0.3) for b, n in enumerate(sizes)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_missing_response_may_stand_anywhere_in_the_list():
    policy, reference, labels = lists()
    there = np.array([0, 2, 3])
    expected = lipo_lambda(policy[:, there], reference[:, there], labels[:, there], FULL[:, there])
    hole = FULL.at[:, 1].set(False)
    np.testing.assert_allclose(lipo_lambda(policy, reference, labels, hole), expected, rtol=1e-5)


def test_one_token_is_enough_for_a_response_to_be_there():
    policy, reference, labels = lists()
    one = jnp.zeros_like(FULL).at[..., -1].set(True)
    np.testing.assert_array_equal(
        lipo_lambda(policy, reference, labels, one), lipo_lambda(policy, reference, labels, FULL)
    )


def test_two_responses_give_a_constant_times_dpo():
    policy, reference, _ = lists(size=2)
    labels = jnp.tile(jnp.array([1.0, 0.0]), (B, 1))
    got = lipo_lambda(policy, reference, labels, FULL[:, :2], beta=0.2)
    pair = dpo(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], beta=0.2)
    np.testing.assert_allclose(got, (1 / np.log(2) - 1 / np.log(3)) * pair, rtol=1e-5)
    assert round(1 / np.log(2) - 1 / np.log(3), 4) == 0.5325


def test_joint_permutation_changes_nothing():
    policy, reference, labels = lists()
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        lipo_lambda(policy[:, order], reference[:, order], labels[:, order], FULL),
        lipo_lambda(policy, reference, labels, FULL),
        rtol=1e-5,
    )


def test_common_shift_of_the_scores_changes_nothing():
    policy, reference, labels = lists()
    np.testing.assert_allclose(
        lipo_lambda(policy + 7, reference, labels, FULL), lipo_lambda(policy, reference, labels, FULL), rtol=1e-4
    )


def test_gradient_over_a_list_sums_to_zero():
    policy, reference, labels = lists()
    gradient = jax.grad(lambda p: jnp.sum(lipo_lambda(p, reference, labels, FULL)))(policy)
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-6)


def test_equal_labels_contribute_nothing():
    policy, reference, _ = lists()
    np.testing.assert_array_equal(lipo_lambda(policy, reference, jnp.full((B, K), 0.5), FULL), np.zeros(B))


def test_ranks_come_from_the_scores_and_not_from_the_labels():
    """The same pair, one nat apart, weighs less where the model ranks it third and fourth than first and second."""
    pair = np.log1p(np.exp(-1.0))
    # Labels 1, 1, 1, 0: three ordered pairs, all against the last; scores of 90 and 80 make two of them vanish.
    far_down = lipo_lambda(
        jnp.array([[90.0, 80.0, 0.0, -1.0]]), jnp.zeros((1, 4)), jnp.array([[1.0, 1.0, 1.0, 0.0]]), FULL[:1], beta=1.0
    )
    np.testing.assert_allclose(far_down, [(1 / np.log(4) - 1 / np.log(5)) * pair], rtol=1e-5)
    # Labels 0, 0, 1, 0: the responses at -80 and -90 are beaten beyond doubt, and the pair stands at the top.
    at_the_top = lipo_lambda(
        jnp.array([[-80.0, -90.0, 0.0, -1.0]]), jnp.zeros((1, 4)), jnp.array([[0.0, 0.0, 1.0, 0.0]]), FULL[:1], beta=1.0
    )
    np.testing.assert_allclose(at_the_top, [(1 / np.log(2) - 1 / np.log(3)) * pair], rtol=1e-5)


def test_ties_keep_the_order_of_the_list():
    """Policy equal to reference: every score is 0, so the first response has rank 1, the second rank 2 ..."""
    labels = jnp.array([[1.0, 0.0, 0.0]])
    zeros, mask = jnp.zeros((1, 3)), FULL[:1, :3]
    expected = np.log(2) * sum(1 / np.log(2) - 1 / np.log(1 + rank) for rank in (2, 3))
    np.testing.assert_allclose(lipo_lambda(zeros, zeros, labels, mask), [expected], rtol=1e-5)


@pytest.mark.parametrize("size", [1, 0])
def test_a_list_without_a_pair_costs_nothing(size):
    policy, reference, labels = lists()
    mask = FULL.at[:, size:].set(False)
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(lipo_lambda(p, reference, labels, mask)))(policy)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((B, K)))
