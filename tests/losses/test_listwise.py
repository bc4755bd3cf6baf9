"""Losses on ranked lists against their identities, and against loops over explicit pairs."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses
from alignment.losses import (
    cpl,
    cpl_list,
    dpo,
    lipo_lambda,
    lipo_list_mle,
    lipo_pairwise_hinge,
    lipo_pairwise_logistic,
    lipo_pointwise_mse,
    lipo_pointwise_sigmoid,
    lipo_softmax,
    rrhf,
    rrhf_list,
)

B, K, T = 5, 4, 3
FULL = jnp.ones((B, K, T), bool)
POINTWISE = (lipo_pointwise_mse, lipo_pointwise_sigmoid)
PAIRWISE = (lipo_pairwise_hinge, lipo_pairwise_logistic)
LISTWISE = (lipo_list_mle, lipo_softmax)
LIPO = (*POINTWISE, *PAIRWISE, *LISTWISE)


def named(*kernels):
    return pytest.mark.parametrize("kernel", kernels, ids=lambda k: k.__name__)


def rrhf_alike(policy, reference, labels, mask, *, beta=1.0):
    """`rrhf_list` with the arguments of the others, its summed log-probs beta * (policy - reference)."""
    return rrhf_list(beta * (policy - reference), labels, mask, lambda_=0.3)


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


# ------------------------------------------------------------------------------------- the six other losses of LiPO


def explicit(kernel, policy, reference, labels, beta):
    """One list in float64, by loops over what the formula sums."""
    s = beta * (np.asarray(policy, np.float64) - np.asarray(reference, np.float64))
    psi, n = np.asarray(labels, np.float64), len(s)
    pairs = [s[i] - s[j] for i in range(n) for j in range(n) if psi[i] > psi[j]]
    if kernel is lipo_pointwise_mse:
        return sum((psi - s) ** 2)
    if kernel is lipo_pointwise_sigmoid:
        return -sum(psi * -np.logaddexp(0, -s) + (1 - psi) * -np.logaddexp(0, s))
    if kernel is lipo_pairwise_hinge:
        return sum(max(0, 1 - d) for d in pairs)
    if kernel is lipo_pairwise_logistic:
        return sum(np.logaddexp(0, -d) for d in pairs)
    if kernel is lipo_list_mle:
        order = sorted(range(n), key=lambda i: -psi[i])
        return -sum(s[i] - np.logaddexp.reduce(s[order[k:]]) for k, i in enumerate(order))
    return -sum(psi / psi.sum() * (s - np.logaddexp.reduce(s))) if n else 0.0


@named(*LIPO)
@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(present=st.lists(st.lists(st.booleans(), min_size=K, max_size=K), min_size=B, max_size=B))
def test_equals_its_sum_over_what_is_there_of_ragged_lists(kernel, present):
    policy, reference, labels = lists(1)
    present = np.array(present)
    mask = jnp.asarray(present[..., None] & (np.arange(T) < 2))
    got = kernel(*(jnp.where(present, x, jnp.nan) for x in (policy, reference, labels)), mask, beta=0.3)
    expected = [
        explicit(kernel, policy[b, there], reference[b, there], labels[b, there], 0.3)
        for b, there in enumerate(present)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@named(lipo_pairwise_logistic, lipo_list_mle, lipo_softmax)
def test_two_responses_labelled_one_and_zero_give_dpo(kernel):
    policy, reference, _ = lists(size=2)
    labels = jnp.tile(jnp.array([1.0, 0.0]), (B, 1))
    pair = dpo(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], beta=0.2)
    np.testing.assert_allclose(kernel(policy, reference, labels, FULL[:, :2], beta=0.2), pair, rtol=1e-5)


def test_two_responses_give_the_hinge_of_rso_with_a_reference():
    """rso_hinge_norm: max(0, 1 - beta * h)."""
    policy, reference, _ = lists(size=2)
    labels = jnp.tile(jnp.array([1.0, 0.0]), (B, 1))
    h = (policy - reference) @ jnp.array([1.0, -1.0])
    got = lipo_pairwise_hinge(policy, reference, labels, FULL[:, :2], beta=0.2)
    np.testing.assert_allclose(got, jnp.maximum(0, 1 - 0.2 * h), rtol=1e-5, atol=1e-6)


@named(*LIPO, rrhf_alike)
def test_joint_permutation_changes_nothing_in_any_of_them(kernel):
    policy, reference, labels = lists()
    mask = jnp.asarray(np.random.default_rng(3).random((B, K, T)) < 0.7).at[..., 0].set(True)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        kernel(policy[:, order], reference[:, order], labels[:, order], mask[:, order], beta=0.3),
        kernel(policy, reference, labels, mask, beta=0.3),
        rtol=1e-5,
    )


@named(*LIPO)
def test_common_shift_changes_the_pointwise_losses_and_no_other(kernel):
    policy, reference, labels = lists()
    difference = np.asarray(
        kernel(policy + 7, reference, labels, FULL, beta=0.3) - kernel(policy, reference, labels, FULL, beta=0.3)
    )
    if kernel in POINTWISE:
        assert (np.abs(difference) > 1e-2).all()
    else:
        np.testing.assert_allclose(difference, 0, atol=1e-4)


@named(*PAIRWISE, *LISTWISE)
def test_gradient_over_a_list_sums_to_zero_unless_pointwise(kernel):
    policy, reference, labels = lists()
    gradient = jax.grad(lambda p: jnp.sum(kernel(p, reference, labels, FULL, beta=0.3)))(policy)
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_values_at_equal_scores(size):
    policy, _, labels = lists(size=size)
    mask = FULL[:, :size]
    pairs = size * (size - 1) / 2
    expected = {
        lipo_list_mle: np.log(np.prod(np.arange(1, size + 1))),
        lipo_softmax: np.log(size),
        lipo_pairwise_logistic: pairs * np.log(2),
        lipo_pairwise_hinge: pairs,
        lipo_pointwise_sigmoid: size * np.log(2),
    }
    for kernel, value in expected.items():
        got = kernel(policy, policy, labels, mask)
        np.testing.assert_allclose(got, np.full(B, value), rtol=1e-5, err_msg=kernel.__name__)


@named(*PAIRWISE, lipo_list_mle, rrhf_alike)
def test_only_the_order_of_the_labels_matters(kernel):
    policy, reference, labels = lists()
    np.testing.assert_array_equal(
        kernel(policy, reference, 100 * labels**3 - 5, FULL), kernel(policy, reference, labels, FULL)
    )
    assert np.abs(np.asarray(kernel(policy, reference, -labels, FULL) - kernel(policy, reference, labels, FULL))).max()


@named(*PAIRWISE)
def test_pairs_with_equal_labels_are_left_out(kernel):
    policy, reference, _ = lists(size=3)
    got = kernel(policy, reference, jnp.tile(jnp.array([1.0, 0.0, 0.0]), (B, 1)), FULL[:, :3], beta=0.3)
    two = jnp.tile(jnp.array([1.0, 0.0]), (B, 1))
    one_by_one = [kernel(policy[:, [0, j]], reference[:, [0, j]], two, FULL[:, :2], beta=0.3) for j in (1, 2)]
    np.testing.assert_allclose(got, sum(one_by_one), rtol=1e-5, atol=1e-6)


def test_list_mle_takes_equal_labels_in_the_order_of_the_list():
    policy, reference, _ = lists(size=3)
    tied = lipo_list_mle(policy, reference, jnp.tile(jnp.array([0.5, 1.0, 0.5]), (B, 1)), FULL[:, :3])
    strict = lipo_list_mle(policy, reference, jnp.tile(jnp.array([0.5, 1.0, 0.4]), (B, 1)), FULL[:, :3])
    np.testing.assert_array_equal(tied, strict)


def test_list_mle_probabilities_of_all_orders_sum_to_one():
    policy, reference, _ = lists()
    orders = [jnp.tile(jnp.asarray(o, jnp.float32), (B, 1)) for o in itertools.permutations(range(K))]
    total = sum(jnp.exp(-lipo_list_mle(policy, reference, labels, FULL, beta=0.3)) for labels in orders)
    np.testing.assert_allclose(total, np.ones(B), rtol=1e-5)


def test_softmax_takes_labels_as_shares_and_pulls_by_the_difference_of_shares():
    policy, reference, labels = lists()
    value = lipo_softmax(policy, reference, labels, FULL, beta=0.3)
    np.testing.assert_allclose(lipo_softmax(policy, reference, 7 * labels, FULL, beta=0.3), value, rtol=1e-5)
    gradient = jax.grad(lambda p: jnp.sum(lipo_softmax(p, reference, labels, FULL, beta=0.3)))(policy)
    expected = 0.3 * (jax.nn.softmax(0.3 * (policy - reference)) - labels / labels.sum(-1, keepdims=True))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_softmax_of_labels_that_are_all_zero_costs_nothing_and_of_negative_ones_is_nan():
    policy, reference, _ = lists(size=2)
    labels = jnp.tile(jnp.array([0.0, 0.0]), (B, 1)).at[1].set(jnp.array([1.0, -0.5]))
    value, gradient = jax.value_and_grad(
        lambda p: jnp.sum(lipo_softmax(p, reference, labels, FULL[:, :2])[jnp.array([0, 2, 3, 4])])
    )(policy)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((B, 2)))
    assert np.isnan(lipo_softmax(policy, reference, labels, FULL[:, :2])[1])


def test_pointwise_losses_are_least_where_each_score_says_its_label():
    _, reference, labels = lists()
    labels = jnp.clip(labels, 0.1, 0.9)
    best = {
        lipo_pointwise_mse: labels,
        lipo_pointwise_sigmoid: jnp.log(labels) - jnp.log1p(-labels),
    }
    for kernel, scores in best.items():
        gradient = jax.grad(lambda p, k=kernel: jnp.sum(k(p, reference, labels, FULL, beta=0.5)))
        np.testing.assert_allclose(gradient(reference + scores / 0.5), 0, atol=1e-5)
        assert (gradient(reference + scores / 0.5 + 1) > 0).all() and (gradient(reference + scores / 0.5 - 1) < 0).all()


@named(*PAIRWISE, *LISTWISE)
@pytest.mark.parametrize("size", [1, 0])
def test_a_list_without_a_pair_costs_nothing_unless_pointwise(kernel, size):
    policy, reference, labels = lists()
    mask = FULL.at[:, size:].set(False)
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(kernel(p, reference, labels, mask)))(policy)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((B, K)))


# ---------------------------------------------------------------------------------------------------------- rrhf


def test_rrhf_of_two_ranked_responses_is_that_of_the_pair():
    policy, _, _ = lists(size=2)
    policy, mask = -jnp.abs(policy), FULL[:, :2].at[:, 1, 1:].set(False)
    for labels, best in (([1.0, 0.0], 0), ([0.0, 1.0], 1)):
        got = rrhf_list(policy, jnp.tile(jnp.array(labels), (B, 1)), mask, lambda_=0.3)
        lengths = jnp.tile(jnp.array([T, 1]), (B, 1))
        order = np.array([best, 1 - best])
        expected = rrhf(*policy[:, order].T, *lengths[:, order].T, lambda_=0.3)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(seed=st.integers(0, 2**16))
def test_rrhf_equals_explicit_pairs_for_ragged_lists(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((B, K, T)) < 0.5
    lengths, there = mask.sum(-1), mask.any(-1)
    logps = np.asarray(-rng.gamma(2.0, 3.0, (B, K)), np.float32)
    labels = np.asarray(rng.integers(0, 3, (B, K)) / 2, np.float32)  # with ties
    expected = np.zeros(B)
    for b in range(B):
        present = np.flatnonzero(there[b])
        for i, j in itertools.permutations(present, 2):
            if labels[b, i] > labels[b, j]:
                expected[b] += max(0, logps[b, j] / lengths[b, j] - logps[b, i] / lengths[b, i])
        if len(present):
            expected[b] -= 0.3 * logps[b, present[np.argmax(labels[b, present])]]
    dirty = (jnp.where(there, x, jnp.nan) for x in (logps, labels))
    np.testing.assert_allclose(rrhf_list(*dirty, jnp.asarray(mask), lambda_=0.3), expected, rtol=1e-4, atol=1e-5)


def test_rrhf_without_likelihood_costs_nothing_once_the_means_are_in_order():
    _, _, labels = lists()
    lengths = 1 + np.arange(K) % T
    mask = jnp.asarray(np.tile(np.arange(T) < lengths[:, None], (B, 1, 1)))
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(rrhf_list(p, labels, mask, lambda_=0.0)))(
        (labels - 2) * lengths
    )
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((B, K)))
    assert (rrhf_list((-labels - 2) * lengths, labels, mask, lambda_=0.0) > 0).all()


def test_cpl_list_is_the_mean_of_cpl_over_the_ordered_pairs():
    rng = np.random.default_rng(3)
    logps, labels = jnp.asarray(rng.normal(size=(B, K)) - 3), jnp.asarray(rng.integers(0, 3, (B, K)).astype(np.float32))
    got = cpl_list(logps, labels, FULL, alpha=0.4, contrastive_bias=0.6)
    one = jnp.ones((1,), bool)
    for b in range(B):
        pairs = [
            float(cpl(logps[b, i][None], logps[b, j][None], one, one, alpha=0.4, contrastive_bias=0.6))
            for i, j in itertools.permutations(range(K), 2)
            if labels[b, i] > labels[b, j]
        ]
        np.testing.assert_allclose(got[b], np.mean(pairs) if pairs else 0.0, rtol=1e-5)


# --- FIRST ------------------------------------------------------------------------------------------------------------


def first_lists(scores, length=1):
    """Lists whose first tokens have these log-probs, best candidate first."""
    scores = jnp.asarray(scores, jnp.float32)
    logps = jnp.concatenate([scores[..., None], jnp.full((*scores.shape, length - 1), -1.0)], axis=-1)
    labels = jnp.broadcast_to(jnp.arange(scores.shape[-1], 0, -1.0), scores.shape)
    return logps, labels, jnp.ones(logps.shape, bool)


def test_first_is_blind_to_a_constant_and_nothing_for_a_perfect_order_with_large_gaps():
    scores = np.random.default_rng(0).normal(size=(3, 5))
    value = losses.first_ranknet(*first_lists(scores))
    np.testing.assert_allclose(losses.first_ranknet(*first_lists(scores + 4.0)), value, rtol=1e-5)
    assert losses.first_ranknet(*first_lists([[0.0, -50.0, -100.0]]))[0] < 1e-6
    assert losses.first_ranknet(*first_lists([[-100.0, -50.0, 0.0]]))[0] > 10


def test_first_is_the_mean_over_all_pairs_weighed_by_their_ranks():
    scores = np.random.default_rng(1).normal(size=5)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    assert len(pairs) == 5 * 4 // 2
    expected = np.mean([np.logaddexp(0, scores[j] - scores[i]) / (i + j + 2) for i, j in pairs])
    got = losses.first_ranknet(*first_lists([scores], length=3))  # what follows the first token is not looked at
    np.testing.assert_allclose(got, [expected], rtol=1e-5)
    swapped = [x[:, np.array([3, 1, 4, 0, 2])] for x in first_lists([scores])]  # the order of the list says nothing
    np.testing.assert_allclose(losses.first_ranknet(*swapped), [expected], rtol=1e-5)


def test_the_language_modelling_part_is_the_likelihood_of_the_best_response():
    logps, labels, mask = first_lists([[-0.5, -1.0]], length=3)
    np.testing.assert_allclose(losses.first_lm(logps, labels, mask), [2.5 / 3], rtol=1e-6)
    gradient = jax.grad(lambda x: losses.first_lm(x, labels, mask).sum())(logps)
    np.testing.assert_allclose(gradient, [[[-1 / 3] * 3, [0.0] * 3]], rtol=1e-6)
