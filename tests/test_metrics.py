"""Metrics: values by hand, no gradient, nothing from behind the mask, and a NaN that does not pass for a number."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import metrics
from alignment.losses import dpo, position_kl

F = jnp.asarray
PAIR = (F([-1.0, -3.0, -2.0]), F([-2.0, -1.0, -2.0]), F([-1.5, -2.0, -2.0]), F([-1.0, -2.0, -2.0]))  # h = 1.5, -2, 0
TOKENS, MASK = F([[0.5, 2.0], [3.0, 4.0]]), F([[True, False], [True, True]])

LENGTHS = (jnp.array([1, 3, 1]), jnp.array([1, 1, 2]))
PROPORTIONS = F([0.5, 0.9, 0.1])
LISTS = F([[-1.0, -2.0, -3.0], [-1.0, -3.0, -2.0], [-2.0, -2.0, -9.0]])  # in order; last two swapped; a tie
LABELS = F([[1.0, 0.5, 0.0], [1.0, 0.5, 0.0], [1.0, 0.5, 0.0]])
RAGGED = jnp.ones((3, 3, 2), bool).at[:, :, 1].set(False)

# log-ratios 0.5, 0 and -0.5 of the three tokens that count
RATIOS = (F([[-1.0, -9.0], [-2.0, -3.0]]), F([[-1.5, 5.0], [-2.0, -2.5]]), MASK)
VALUES, RETURNS, BOTH = F([[1.0, 9.0], [2.0, 2.0]]), F([[2.0, 9.0], [2.0, 5.0]]), jnp.ones(2, bool)
TARGET = (F([-3.0, -2.0]), F([-2.0, -2.0]), F([-2.5, -1e30]), F([-1.0, -1.0]))

# name: (arguments, hyperparameters, expected)
CASES = {
    "chosen_logp": (PAIR[:1], {}, [-1.0, -3.0, -2.0]),
    "rejected_logp": (PAIR[1:2], {}, [-2.0, -1.0, -2.0]),
    "chosen_reward": ((PAIR[0], PAIR[2]), {"beta": 0.5}, [0.25, -0.5, 0.0]),
    "rejected_reward": ((PAIR[1], PAIR[3]), {"beta": 0.5}, [-0.5, 0.5, 0.0]),
    "reward_margin": (PAIR, {"beta": 0.5}, [0.75, -1.0, 0.0]),
    "reward_accuracy": (PAIR, {}, [1.0, 0.0, 0.0]),
    "reward_model_accuracy": ((F([2.0, 1.0, 1.0]), F([1.0, 2.0, 1.0])), {}, [1.0, 0.0, 0.0]),
    "reward_heads_accuracy": (
        (F([[2.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), F([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])),
        {},
        [0.5, 1.0, 0.0],
    ),
    # 1 * 4 - 2 * 3 = -2; 2 * 1 - 0 = 2; the third head is not looked at
    "general_preference_accuracy": (
        (
            F([[1.0, 2.0, 9.0], [2.0, 0.0, 9.0], [1.0, 1.0, 9.0]]),
            F([[3.0, 4.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]),
        ),
        {},
        [0.0, 1.0, 0.0],
    ),
    "step_accuracy": (
        (
            F([[[0.0, 1.0], [5.0, 5.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]),
            F([[1.0, 1.0], [0.2, 0.0], [1.0, 0.0]]),
            jnp.array([[True, False], [True, True], [False, False]]),
        ),
        {},
        [1.0, 0.5, 0.0],
    ),
    # c = rejected - chosen of the reference = 0.5, 0, 0; -log s(0.25) = 0.575939
    "dpo_flip_loss": (PAIR[2:], {"beta": 0.5}, [0.575939, 0.693147, 0.693147]),
    "dpo_flipped": (PAIR, {"beta": 0.5}, [1.0, 0.0, 1.0]),
    "ranking_accuracy": (PAIR[:2], {}, [1.0, 0.0, 1.0]),
    "length_normalized_ranking_accuracy": ((*PAIR[:2], *LENGTHS), {}, [1.0, 1.0, 0.0]),  # -1, -1, -2 and -2, -1, -1
    # |e^-1 - e^-2| = 0.23 is no tie; -3 < -1 although 90 % prefer it; -2 == -2 is not the other way round
    "ranking_accuracy_with_ties": ((*PAIR[:2], PROPORTIONS), {}, [0.0, 0.0, 0.0]),
    "list_ranking_accuracy": ((LISTS, LABELS, RAGGED), {}, [1.0, 0.0, 1.0]),
    # -0.5 + log 1; 0 + 2 log 9; 0 - 2 log 9
    "idealized_ranking_accuracy": ((*PAIR[2:], PROPORTIONS), {"beta": 0.5}, [0.0, 1.0, 0.0]),
    # per token -1.5, -2/3, -2 against -1, -2, -1: -0.5; 1.33 + log 9; -1 - log 9
    "length_normalized_idealized_ranking_accuracy": (
        (*PAIR[2:], PROPORTIONS, *LENGTHS),
        {"beta": 1.0},
        [0.0, 1.0, 0.0],
    ),
    "chosen_log_ratio": ((PAIR[0], PAIR[2]), {}, [0.5, -1.0, 0.0]),
    "rejected_log_ratio": ((PAIR[1], PAIR[3]), {}, [-1.0, 1.0, 0.0]),
    # 1 - e^-1 - e^-2, 1 - e^-3 - e^-1, 1 - 2 e^-2
    "unseen_mass": (PAIR[:2], {}, [0.496785, 0.582333, 0.729329]),
    # log(e^-1 + e^-2) - log(e^-1.5 + e^-1) = (-1 + 0.313262) - (-1 + 0.474077); (-1 + 0.126928) - (-2 + 0.693147); 0
    "pair_mass_log_ratio": (PAIR, {}, [-0.1608153, 0.4337808, 0.0]),
    "token_nll": ((-TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    "token_entropy": ((TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    "kl_to_reference": ((TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    "sequence_forward_kls": ((TOKENS, MASK), {}, [0.5, 7.0]),
    # e^0.5 = 1.65 and e^-0.5 = 0.61 against 0.5 and 1.5
    "clip_fraction": (RATIOS, {"eps_low": 0.5, "eps_high": 0.5}, [[1.0, 0.0], [0.0, 0.0]]),
    "approx_kl": (RATIOS, {}, [[0.1487213, 0.0], [0.0, 0.1065307]]),
    "kl_to_teacher": ((TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    "forward_kl_to_teacher": ((TOKENS, MASK), {}, [[0.5, 0.0], [3.0, 4.0]]),
    # log-ratios 0.5 and 0, -0.5; e^-0.5 - 0.5 and 0, e^0.5 - 1.5
    "sequence_kl": (RATIOS, {}, [0.5, -0.5]),
    "sequence_kl_k3": (RATIOS, {}, [0.1065307, 0.1487213]),
    "draft_acceptance": ((F([[0.25, 9.0], [0.0, 1.0]]), MASK), {}, [[0.75, 0.0], [1.0, 0.0]]),
    # P / Z q = e^0.5 of the first, log(P / pi) = 0.5, log Z = -1; the second cannot be
    "target_kl": (TARGET, {}, [1.6487213 * 0.5 + 1, 1.0]),
    # log(policy / q) = -1 under the weight e^0.5
    "target_kl_gain": (TARGET, {}, [-1.6487213, 0.0]),
    # |e^-1 - e^0.5| / 2 and e^0 / 2
    "target_total_variation": (TARGET, {}, [0.6404209, 0.5]),
    # gains 3, 1, 0 in the order 1, 2, 0: (1 + 3 / log2(4)) / (3 + 1 / log2(3)); one response; none of any worth
    "first_token_ndcg": (
        (
            F([[[-1.0], [-0.5], [-2.0]], [[-1.0], [-9.0], [-9.0]], [[-1.0], [-2.0], [-3.0]]]),
            F([[0.0, 1.0, 2.0], [1.0, 5.0, 5.0], [0.0, 0.0, 0.0]]),
            jnp.array([[[True]] * 3, [[True], [False], [False]], [[True]] * 3]),
        ),
        {},
        [(1 + 3 / 2) / (3 + 1 / np.log2(3)), 1.0, 0.0],
    ),
    # returns 2, 2, 5 of variance 2; errors 1, 0, 3 about 4/3: 1 - 1/18, 1 - 16/18, 1 - 25/18
    "explained_variance": ((VALUES, RETURNS, MASK, BOTH), {}, [[17 / 18, 0.0], [2 / 18, -7 / 18]]),
}
each = pytest.mark.parametrize("name", CASES)
each_with_mask = pytest.mark.parametrize(
    "name", [n for n, (arrays, _, _) in CASES.items() if arrays[-1].dtype == bool and len(arrays) == 2]
)


def call(name, arrays=None):
    given, hyper, _ = CASES[name]
    return getattr(metrics, name)(*(given if arrays is None else arrays), **hyper)


def test_every_public_metric_has_a_case():
    assert sorted(metrics.__all__) == sorted(CASES)
    files = [m for _, m in inspect.getmembers(metrics, inspect.ismodule) if m.__name__.startswith(metrics.__name__)]
    own = [n for m in files for n, f in inspect.getmembers(m, inspect.isfunction) if f.__module__ == m.__name__]
    assert sorted(n for n in own if not n.startswith("_")) == sorted(metrics.__all__)


@each
def test_value_by_hand_in_float32(name):
    values = call(name)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, CASES[name][2], rtol=1e-6)


@each
def test_half_precision_input_gives_float32(name):
    arrays = [a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in CASES[name][0]]
    assert call(name, arrays).dtype == jnp.float32


@each
def test_no_gradient_passes(name):
    arrays = CASES[name][0]
    floating = tuple(i for i, a in enumerate(arrays) if jnp.issubdtype(a.dtype, jnp.floating))
    for gradient in jax.grad(lambda *a: jnp.sum(call(name, a)), argnums=floating)(*arrays):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@each_with_mask
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_behind_the_mask_is_seen(name, poison):
    tokens, mask = CASES[name][0]
    np.testing.assert_array_equal(call(name, (jnp.where(mask, tokens, poison), mask)), call(name))


@each
def test_wrong_shape_is_rejected(name):
    arrays = CASES[name][0]
    if len(arrays) > 1:
        with pytest.raises(AssertionError):
            call(name, (arrays[0][:1], *arrays[1:]))


@pytest.mark.parametrize("name", [n for n in CASES if "accuracy" in n or n == "dpo_flipped"])
def test_an_accuracy_of_nan_is_nan_and_not_a_miss(name):
    arrays = list(CASES[name][0])
    arrays[0] = arrays[0].at[0, ..., :1].set(jnp.nan) if arrays[0].ndim > 1 else arrays[0].at[0].set(jnp.nan)
    np.testing.assert_array_equal(np.isnan(call(name, arrays)), [True, False, False])


def test_margin_is_the_argument_of_the_dpo_loss():
    margin = metrics.reward_margin(*PAIR, beta=0.5)
    np.testing.assert_allclose(dpo(*PAIR, beta=0.5), np.log1p(np.exp(-margin)), rtol=1e-6)


def test_sequential_kl_sums_what_position_kl_gives():
    rng = np.random.default_rng(0)
    policy, reference = (jnp.asarray(rng.normal(size=(2, 2, 5)), jnp.float32) for _ in range(2))
    kls = position_kl(policy, reference)
    expected = np.where(MASK, kls, 0).sum(-1)
    np.testing.assert_allclose(metrics.sequence_forward_kls(kls, MASK), expected, rtol=1e-6)


def test_beta_out_of_range_states_the_range():
    with pytest.raises(ValueError, match=r"beta must lie in \(0, inf\)"):
        metrics.reward_margin(*PAIR, beta=0.0)


# --- rankings ---------------------------------------------------------------------------------------------------------


def pairs(size=200, seed=0, scale=5.0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(-20 + scale * rng.normal(size=size), jnp.float32) for _ in range(4)]


def test_reward_accuracy_is_ranking_accuracy_under_an_indifferent_reference():
    chosen, rejected, reference, _ = pairs()
    np.testing.assert_array_equal(
        metrics.ranking_accuracy(chosen, rejected), metrics.reward_accuracy(chosen, rejected, reference, reference)
    )


def test_a_low_loss_ranks_rightly_what_the_reference_has_right():
    """log ref(y_w) >= log ref(y_l) and a loss of at most 0.6 < log 2; without the reference's help it may be wrong."""
    chosen, rejected, reference_chosen, reference_rejected = pairs(2000)
    low = np.asarray(dpo(chosen, rejected, reference_chosen, reference_rejected, beta=0.5)) <= 0.6
    helped = np.asarray(reference_chosen >= reference_rejected)
    right = np.asarray(metrics.ranking_accuracy(chosen, rejected)) == 1
    assert (low & helped).sum() > 100 and right[low & helped].all()
    assert not right[low & ~helped].all()


@settings(deadline=None)
@given(st.floats(0.05, 2.0), st.integers(0, 1000))
def test_a_pair_is_ranked_rightly_iff_its_loss_is_at_most_the_flip_loss(beta, seed):
    arrays = pairs(20, seed)
    loss = np.asarray(dpo(*arrays, beta=beta), np.float64)
    flip = np.asarray(metrics.dpo_flip_loss(*arrays[2:], beta=beta), np.float64)
    clear = np.abs(loss - flip) > 1e-5 * flip
    right = np.asarray(metrics.ranking_accuracy(*arrays[:2]))
    np.testing.assert_array_equal((loss <= flip)[clear], (right == 1)[clear])
    np.testing.assert_array_equal(np.asarray(metrics.dpo_flipped(*arrays, beta=beta))[clear], right[clear])


def test_the_flip_loss_is_the_loss_of_a_policy_that_finds_both_equally_likely():
    chosen, _, reference_chosen, reference_rejected = pairs()
    for beta in (0.1, 1.0):
        np.testing.assert_allclose(
            metrics.dpo_flip_loss(reference_chosen, reference_rejected, beta=beta),
            dpo(chosen, chosen, reference_chosen, reference_rejected, beta=beta), rtol=1e-4,
        )  # fmt: skip


def test_the_flip_loss_falls_strictly_as_the_reference_gets_worse():
    c = jnp.linspace(-20, 20, 81)
    losses = metrics.dpo_flip_loss(jnp.zeros_like(c), c, beta=0.5)
    assert np.all(np.diff(losses) < 0)
    np.testing.assert_allclose(losses[40], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses[-1], np.exp(-10.0), rtol=1e-4)  # exp(-beta c) for large c


def test_flipped_is_right_where_both_losses_round_to_zero():
    zero = F([0.0])
    assert dpo(F([5e3]), zero, -F([1e4]), zero) == 0  # h = 1.5e4, c = 1e4
    # h = 5e3 and c = 1e4: ranked wrongly, though loss == flip loss == 0 in float32
    arrays = (-F([5e3]), zero, -F([1e4]), zero)
    assert metrics.dpo_flip_loss(*arrays[2:], beta=0.5) == 0 and dpo(*arrays, beta=0.5) == 0
    assert metrics.dpo_flipped(*arrays, beta=0.5) == metrics.ranking_accuracy(*arrays[:2]) == 0


def test_an_even_split_wants_probabilities_within_eps():
    logps = jnp.log(F([0.5, 0.5])), jnp.log(F([0.495, 0.48]))
    values = metrics.ranking_accuracy_with_ties(*logps, F([0.5, 0.5]))
    np.testing.assert_array_equal(values, [1.0, 0.0])
    np.testing.assert_array_equal(metrics.ranking_accuracy_with_ties(*logps, F([0.5, 0.5]), eps=0.1), [1.0, 1.0])


def test_with_a_clear_majority_ties_change_nothing():
    chosen, rejected, _, _ = pairs()
    for proportion, expected in ((0.8, (chosen, rejected)), (0.2, (rejected, chosen))):
        np.testing.assert_array_equal(
            metrics.ranking_accuracy_with_ties(chosen, rejected, jnp.full_like(chosen, proportion)),
            metrics.ranking_accuracy(*expected),
        )


def test_a_list_of_two_is_a_pair_and_longer_ones_match_numpys_sort():
    chosen, rejected, _, _ = pairs()
    mask = jnp.ones((200, 2, 1), bool)
    labels = jnp.tile(F([1.0, 0.0]), (200, 1))
    np.testing.assert_array_equal(
        metrics.list_ranking_accuracy(jnp.stack([chosen, rejected], 1), labels, mask),
        metrics.ranking_accuracy(chosen, rejected),
    )
    rng = np.random.default_rng(3)
    logps, labels = rng.normal(size=(300, 3)), rng.random((300, 3))
    expected = (np.argsort(logps, 1) == np.argsort(labels, 1)).all(1)
    assert 10 < expected.sum() < 290
    np.testing.assert_array_equal(
        metrics.list_ranking_accuracy(F(logps, jnp.float32), F(labels, jnp.float32), jnp.ones((300, 3, 1), bool)),
        expected,
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, -1.0, 1e30])
def test_a_missing_response_is_not_ranked(poison):
    """A policy that has the first two in order is right, whatever stands in the place of a third that is not there."""
    mask = RAGGED.at[:, 2].set(False)
    logps, labels = LISTS.at[:, 2].set(poison), LABELS.at[:, 2].set(poison)
    np.testing.assert_array_equal(metrics.list_ranking_accuracy(logps, labels, mask), [1.0, 1.0, 1.0])


def test_equal_labels_ask_for_no_order():
    labels = LABELS.at[1].set(F([1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(metrics.list_ranking_accuracy(LISTS, labels, RAGGED), [1.0, 1.0, 1.0])


def test_the_idealized_accuracy_is_the_references_own_where_raters_split_evenly_or_beta_is_large():
    _, _, chosen, rejected = pairs()
    own = np.asarray(chosen > rejected, np.float32)
    rng = np.random.default_rng(1)
    half = jnp.full_like(chosen, 0.5)
    np.testing.assert_array_equal(metrics.idealized_ranking_accuracy(chosen, rejected, half, beta=0.1), own)
    any_ = F(rng.uniform(0.01, 0.99, 200), jnp.float32)
    np.testing.assert_array_equal(metrics.idealized_ranking_accuracy(chosen, rejected, any_, beta=1e6), own)


def test_the_idealized_accuracy_of_a_majority_falls_from_one_to_the_references_with_beta():
    _, _, chosen, rejected = pairs()
    alpha = F(np.random.default_rng(1).uniform(0.51, 1.0, 200), jnp.float32)
    values = [
        np.asarray(metrics.idealized_ranking_accuracy(chosen, rejected, alpha, beta=b)) for b in (1e-5, 0.1, 1, 10, 1e5)
    ]
    np.testing.assert_array_equal(values[0], 1.0)
    assert all(np.all(later <= earlier) for earlier, later in itertools.pairwise(values))
    assert values[2].mean() < 1
    np.testing.assert_array_equal(values[-1], np.asarray(chosen > rejected))


def test_lengths_of_one_change_nothing():
    chosen, rejected, reference_chosen, reference_rejected = pairs()
    ones, alpha = jnp.ones(200, jnp.int32), jnp.full(200, 0.7)
    np.testing.assert_array_equal(
        metrics.length_normalized_ranking_accuracy(chosen, rejected, ones, ones),
        metrics.ranking_accuracy(chosen, rejected),
    )
    np.testing.assert_array_equal(
        metrics.length_normalized_idealized_ranking_accuracy(reference_chosen, reference_rejected, alpha, ones, ones),
        metrics.idealized_ranking_accuracy(reference_chosen, reference_rejected, alpha),
    )


def test_the_unseen_mass_is_what_is_left_and_the_pairs_mass_moves_against_it():
    rng = np.random.default_rng(4)
    policy, reference = (jax.nn.log_softmax(F(rng.normal(size=(50, 6)), jnp.float32)) for _ in range(2))
    unseen = metrics.unseen_mass(policy[:, 0], policy[:, 1])
    np.testing.assert_allclose(unseen, np.exp(policy[:, 2:]).sum(-1), rtol=1e-4)
    change = unseen - metrics.unseen_mass(reference[:, 0], reference[:, 1])
    ratio = metrics.pair_mass_log_ratio(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1])
    np.testing.assert_array_equal(np.sign(ratio), -np.sign(change))
    assert np.isfinite(metrics.pair_mass_log_ratio(*(F([x]) for x in (-1e4, -2e4, -3e4, -1e4))))


# --- online runs -----------------------------------------------------------------------------------------------------


def mean_explained(values, returns, mask=None, valid=None):
    mask = jnp.ones(values.shape, bool) if mask is None else mask
    valid = jnp.ones(len(values), bool) if valid is None else valid
    counted = mask & valid[:, None]
    return float(jnp.sum(metrics.explained_variance(values, returns, mask, valid), where=counted) / jnp.sum(counted))


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_one_that_says_nothing():
    returns = jax.random.normal(jax.random.key(0), (4, 5))
    assert mean_explained(returns, returns) == pytest.approx(1.0)
    assert mean_explained(returns + 3.0, returns) == pytest.approx(1.0, abs=1e-5), "a constant error has no variance"
    assert mean_explained(jnp.full((4, 5), 2.0), returns) == pytest.approx(0.0, abs=1e-6)
    assert mean_explained(-returns, returns) == pytest.approx(-3.0, rel=1e-5)
    assert mean_explained(returns, jnp.ones((4, 5))) == 0.0


def test_explained_variance_sees_neither_masked_tokens_nor_rows_that_are_not_there():
    values, returns = (jax.random.normal(jax.random.key(i), (4, 5)) for i in (0, 1))
    mask, valid = jnp.ones((4, 5), bool).at[0, 3:].set(False), jnp.array([True, True, True, False])
    want = mean_explained(values, returns, mask, valid)
    e, r = np.asarray(returns - values)[mask & valid[:, None]], np.asarray(returns)[mask & valid[:, None]]
    assert want == pytest.approx(1 - e.var() / r.var(), rel=1e-4)
    poison = jnp.where(mask & valid[:, None], 0.0, jnp.nan)
    assert mean_explained(values + poison, returns - poison, mask, valid) == want


def test_the_ratio_metrics_see_nothing_behind_the_mask():
    policy, behaviour, mask = RATIOS
    for name in ("clip_fraction", "approx_kl"):
        poison = jnp.where(mask, 0.0, jnp.nan)
        np.testing.assert_array_equal(call(name, (policy + poison, behaviour - poison, mask)), call(name))
        assert jnp.isnan(call(name, (policy.at[0, 0].set(jnp.nan), behaviour, mask))[0, 0])


def test_approx_kl_is_never_negative_and_nothing_before_an_update():
    log_ratios = jnp.linspace(-1e4, 1e4, 101)[None]
    kl = metrics.approx_kl(log_ratios, jnp.zeros_like(log_ratios), jnp.ones(log_ratios.shape, bool))
    assert (kl >= 0).all() and jnp.isfinite(kl).all() and kl[0, 50] == 0
