"""Targets on a finite space: RL with a KL penalty as inference, and the constraints of GDC."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import analysis, games
from alignment import policy_gradients as pg

RNG = np.random.default_rng(2)
PI, REFERENCE = (np.log(RNG.dirichlet(np.ones(9), size=3)).astype(np.float32) for _ in range(2))
REWARDS = RNG.normal(size=(3, 9)).astype(np.float32)
BETA = 0.4
OPTIMUM = analysis.kl_regularised_optimum(REFERENCE, REWARDS, beta=BETA)


def objective(logits):
    return games.kl_rl_objective(jax.nn.log_softmax(logits), REFERENCE, REWARDS, beta=BETA)


# --------------------------------------------------------------------------------------------------- RL as inference


def test_the_objective_is_the_evidence_less_the_divergence_from_the_posterior():
    evidence = BETA * games.kl_rl_log_partition(REFERENCE, REWARDS, beta=BETA)
    np.testing.assert_allclose(objective(PI), evidence - BETA * games.kl_divergence(PI, OPTIMUM), atol=1e-6)
    np.testing.assert_allclose(objective(OPTIMUM), evidence, atol=1e-6)
    assert np.all(objective(PI) < evidence)
    # The value itself, term by term.
    p = np.exp(PI)
    np.testing.assert_allclose(objective(PI), (p * (REWARDS - BETA * (PI - REFERENCE))).sum(-1), atol=1e-6)


def test_its_gradient_is_that_of_the_divergence():
    ascent = jax.grad(lambda z: jnp.sum(objective(z)))(PI)
    kl = jax.grad(lambda z: jnp.sum(games.kl_divergence(jax.nn.log_softmax(z), OPTIMUM)))(PI)
    np.testing.assert_allclose(ascent, -BETA * kl, atol=1e-6)


def test_without_a_penalty_the_optimum_collapses_and_with_a_large_one_it_is_the_reference():
    greedy = analysis.kl_regularised_optimum(REFERENCE, REWARDS, beta=1e-4)
    np.testing.assert_allclose(jnp.sum(jnp.exp(greedy) * greedy, -1), 0, atol=1e-6)
    assert np.all(jnp.argmax(greedy, -1) == REWARDS.argmax(-1))
    np.testing.assert_allclose(analysis.kl_regularised_optimum(REFERENCE, REWARDS, beta=1e6), REFERENCE, atol=1e-5)


def test_a_constant_reward_changes_nothing_and_tilts_compose():
    moved = analysis.kl_regularised_optimum(REFERENCE, REWARDS + 3.0, beta=BETA)
    np.testing.assert_allclose(moved, OPTIMUM, atol=1e-5)
    more = RNG.normal(size=(3, 9)).astype(np.float32)
    twice = analysis.kl_regularised_optimum(OPTIMUM, more, beta=0.7)
    once = analysis.kl_regularised_optimum(REFERENCE, REWARDS / BETA + more / 0.7, beta=1.0)
    np.testing.assert_allclose(twice, once, atol=1e-5)


def test_token_rewards_with_the_penalty_sum_to_the_objective_of_a_sequence():
    """A tree of two tokens: the expected sum of shaped token rewards is E[r] - beta KL of the sequences."""
    first, second = (np.log(RNG.dirichlet(np.ones(3), size=s)).astype(np.float32) for s in ((2,), (2, 3)))
    tokens = np.array(list(itertools.product(range(3), range(3))))
    policy, reference = (np.stack([first[i][tokens[:, 0]], second[i][tokens[:, 0], tokens[:, 1]]], -1) for i in (0, 1))
    scores = REWARDS[0]
    mask = np.ones((9, 2), bool)
    shaped = pg.kl_shaped_rewards(scores, policy, reference, mask, beta=BETA)
    expected = np.sum(np.exp(policy.sum(-1)) * shaped.sum(-1))
    whole = games.kl_rl_objective(policy.sum(-1), reference.sum(-1), scores, beta=BETA)
    np.testing.assert_allclose(expected, whole, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- constraints


FEATURES = np.stack([RNG.random((3, 9)) < 0.3, RNG.normal(size=(3, 9))], -1).astype(np.float32)
FEATURES[:, 0, 0], FEATURES[:, 1, 0] = 1, 0  # the binary feature is neither always nor never there


def moments(logps):
    return np.einsum("by,byf->bf", np.exp(logps), FEATURES)


def test_the_target_has_the_moments_and_is_the_closest_that_has():
    wanted = moments(PI)
    target = games.gdc_moment_target(REFERENCE, FEATURES, games.gdc_coefficients(REFERENCE, FEATURES, wanted))
    np.testing.assert_allclose(moments(target), wanted, atol=1e-5)
    # PI has the same moments: Pythagoras.
    parts = games.kl_divergence(PI, target) + games.kl_divergence(target, REFERENCE)
    np.testing.assert_allclose(games.kl_divergence(PI, REFERENCE), parts, rtol=1e-4)
    assert np.all(games.kl_divergence(target, REFERENCE) < games.kl_divergence(PI, REFERENCE))


def test_moments_of_the_base_model_ask_for_no_change():
    lam = games.gdc_coefficients(REFERENCE, FEATURES, moments(REFERENCE).astype(np.float32))
    np.testing.assert_allclose(lam, 0, atol=1e-4)
    np.testing.assert_allclose(games.gdc_moment_target(REFERENCE, FEATURES, lam), REFERENCE, atol=1e-4)


def test_a_rate_is_raised_from_a_few_percent_to_a_half():
    base = np.log(np.array([0.03, 0.04, 0.5, 0.43], np.float32))
    rare = np.array([[1.0], [1.0], [0.0], [0.0]], np.float32)
    lam = games.gdc_coefficients(base, rare, np.array([0.5], np.float32))
    np.testing.assert_allclose(lam, np.log(0.93 / 0.07), rtol=1e-5)
    np.testing.assert_allclose(np.exp(games.gdc_moment_target(base, rare, lam))[:2].sum(), 0.5, rtol=1e-5)


def test_a_certain_feature_is_the_limit_of_large_coefficients():
    satisfied = FEATURES[..., 0] > 0
    hard = games.gdc_pointwise_target(REFERENCE, satisfied)
    soft = games.gdc_moment_target(REFERENCE, FEATURES[..., :1], np.full((3, 1), 40.0, np.float32))
    np.testing.assert_allclose(np.exp(hard), np.exp(soft), atol=1e-6)
    assert np.all(np.isneginf(np.asarray(hard)[~satisfied]))
    np.testing.assert_allclose(
        games.kl_divergence(hard, REFERENCE), -np.log((np.exp(REFERENCE) * satisfied).sum(-1)), rtol=1e-5
    )


def test_dependent_features_do_not_break_the_fit():
    doubled = np.concatenate([FEATURES, 2 * FEATURES[..., :1], np.ones_like(FEATURES[..., :1])], -1)
    wanted = np.einsum("by,byf->bf", np.exp(PI), doubled)
    lam = games.gdc_coefficients(REFERENCE, doubled, wanted)
    got = np.einsum("by,byf->bf", np.exp(games.gdc_moment_target(REFERENCE, doubled, lam)), doubled)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_estimates_from_the_whole_space_are_exact_and_from_samples_close():
    """Every response once, as a sample of the uniform proposal, is the exact sum."""
    uniform = np.full((3, 9), -np.log(9), np.float32)
    wanted = moments(PI).astype(np.float32)
    exact = games.gdc_coefficients(REFERENCE, FEATURES, wanted)
    found = games.gdc_sampled_coefficients(uniform, REFERENCE, FEATURES, wanted, learning_rate=1.0, steps=2000)
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3)
    tilted = REFERENCE + REWARDS / BETA
    log_partition = games.kl_rl_log_partition(REFERENCE, REWARDS, beta=BETA)
    np.testing.assert_allclose(games.gdc_log_partition(uniform, tilted), log_partition, atol=1e-5)
    drawn = np.asarray(jax.random.categorical(jax.random.key(0), PI[:1], shape=(20000, 1)))[:, 0]
    estimate = games.gdc_log_partition(PI[0][drawn], tilted[0][drawn])
    np.testing.assert_allclose(estimate, log_partition[0], atol=0.1)


def test_the_effective_sample_size_counts_the_samples_that_matter():
    np.testing.assert_allclose(games.effective_sample_size(PI, PI - 3.0), 9, rtol=1e-5)
    one = np.where(np.arange(9) == 4, PI, -np.inf).astype(np.float32)
    np.testing.assert_allclose(games.effective_sample_size(PI, one), 1, rtol=1e-6)


def test_distances_are_zero_between_equals_and_bound_each_other():
    assert np.all(games.kl_divergence(PI, PI) == 0) and np.all(games.total_variation(PI, PI) == 0)
    tv, kl = games.total_variation(PI, REFERENCE), games.kl_divergence(PI, REFERENCE)
    assert np.all(tv > 0) and np.all(tv <= np.sqrt(kl / 2))  # Pinsker
    # The largest difference of the probabilities of any event is that of {p > q}.
    event = PI > REFERENCE
    np.testing.assert_allclose(tv, np.sum((np.exp(PI) - np.exp(REFERENCE)) * event, axis=-1), rtol=1e-4)
    apart = games.total_variation(np.float32([0, -np.inf]), np.float32([-np.inf, 0]))
    assert apart == 1
