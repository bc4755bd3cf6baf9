"""The bandit of "Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data" against the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis, losses

RNG = np.random.default_rng(0)
LOGITS, REFERENCE = (jnp.asarray(RNG.normal(size=12), jnp.float32) for _ in range(2))
REWARDS = jnp.asarray(RNG.random(12), jnp.float32)
TARGET = analysis.kl_regularised_optimum(jax.nn.log_softmax(REFERENCE), REWARDS, beta=0.3)


def kl(first, second):
    return jnp.sum(jnp.exp(first) * (first - second))


def test_both_gradients_are_those_of_the_kls_and_vanish_at_the_optimum():
    forward = jax.grad(lambda z: kl(TARGET, jax.nn.log_softmax(z)))(LOGITS)
    reverse = jax.grad(lambda z: kl(jax.nn.log_softmax(z), TARGET))(LOGITS)
    np.testing.assert_allclose(analysis.forward_kl_gradient(LOGITS, TARGET), forward, atol=1e-6)
    np.testing.assert_allclose(analysis.reverse_kl_gradient(LOGITS, TARGET), reverse, atol=1e-6)
    for gradient in (analysis.forward_kl_gradient, analysis.reverse_kl_gradient):
        np.testing.assert_allclose(gradient(TARGET + 3.0, TARGET), 0, atol=1e-6)


def test_forward_gradient_is_bounded_and_reverse_gradient_scales_with_the_policys_own_mass():
    assert np.abs(analysis.forward_kl_gradient(100 * LOGITS, TARGET)).max() <= 1
    starved = LOGITS.at[3].set(-30.0)
    assert abs(analysis.reverse_kl_gradient(starved, TARGET)[3]) < 1e-10
    assert abs(analysis.forward_kl_gradient(starved, TARGET)[3]) > 1e-3


def test_optimum_has_the_largest_regularised_reward():
    def value(logits):
        logps = jax.nn.log_softmax(logits)
        return jnp.exp(logps) @ REWARDS - 0.3 * kl(logps, jax.nn.log_softmax(REFERENCE))

    np.testing.assert_allclose(jax.grad(value)(TARGET), 0, atol=1e-6)
    assert value(TARGET) > value(LOGITS)


def test_objectives_are_those_of_the_losses_package():
    policy, reference, rewards = (jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32) for _ in range(3))
    best, worst = jnp.argmax(rewards, -1), jnp.argmin(rewards, -1)
    rows = jnp.arange(5)
    pair = (policy[rows, best], policy[rows, worst], reference[rows, best], reference[rows, worst])
    dpo, ipo = (f(policy, reference, rewards, beta=0.2) for f in (analysis.dpo_objective, analysis.ipo_objective))
    np.testing.assert_allclose(dpo, losses.dpo(*pair, beta=0.2), rtol=1e-5)
    np.testing.assert_allclose(ipo, losses.ipo(*pair, tau=0.2), rtol=1e-5)
    plain = analysis.best_of_n_objective(policy, reference, rewards)
    np.testing.assert_allclose(plain, -pair[0], rtol=1e-6)
    others = (policy.sum(-1) - pair[0]) / 3
    negatives = analysis.best_of_n_with_negatives_objective(policy, reference, rewards, beta=0.2)
    np.testing.assert_allclose(negatives, plain + 0.2 * others, rtol=1e-5)
    flat = analysis.reward_weighted_objective(policy, reference, rewards, beta=1e6)
    np.testing.assert_allclose(flat, -policy.mean(-1), rtol=1e-4)


def best_of_n_distribution(logits, samples):
    order = np.argsort(np.asarray(REWARDS))
    cumulative = np.cumsum(np.asarray(jax.nn.softmax(logits))[order]) ** samples
    share = np.empty(12)
    share[order] = np.diff(np.concatenate([[0.0], cumulative]))
    return share


def test_offline_best_of_n_converges_to_the_distribution_of_best_arms():
    run = analysis.offline_bandit(jax.random.key(0), REFERENCE, REWARDS, rounds=20000, samples=3, learning_rate=0.02)
    np.testing.assert_allclose(jax.nn.softmax(run.logits), best_of_n_distribution(REFERENCE, 3), atol=0.04)


def test_one_on_policy_step_is_an_unbiased_reinforce_step():
    def step(key):
        run = analysis.on_policy_bandit(
            key, REFERENCE, REWARDS, objective=analysis.reinforce_objective, rounds=1, samples=4, learning_rate=1.0
        )
        return run.logits - REFERENCE

    steps = jax.vmap(step)(jax.random.split(jax.random.key(0), 40000))
    pi = jax.nn.softmax(REFERENCE)
    expected = pi * (REWARDS - pi @ REWARDS)
    spread = steps.std(0) / 200
    assert np.all(np.abs(steps.mean(0) - expected) < 5 * spread) and np.abs(expected).max() > 20 * spread.max()


def test_a_round_of_many_inner_steps_is_the_offline_curve_of_that_round():
    settings = {"rounds": 1, "inner_steps": 50, "objective": analysis.dpo_objective, "learning_rate": 1.0}
    offline = analysis.offline_bandit(jax.random.key(3), REFERENCE, REWARDS, **settings)
    on_policy = analysis.on_policy_bandit(jax.random.key(3), REFERENCE, REWARDS, **settings)
    for first, second in zip(offline, on_policy, strict=True):
        np.testing.assert_array_equal(first, second)
    assert offline.rewards.shape == offline.kls.shape == (1, 50)


# The setting of the paper's figure: a reference around arm 35, the peak at 60.
ARMS = jnp.arange(100.0)
FAR_REFERENCE = -jnp.square((ARMS - 35) / 12) / 2
PEAK = analysis.peak_rewards(ARMS, jnp.array(60.0), jnp.array(10.0))


@pytest.fixture(scope="module")
def final_rewards():
    objectives = {
        "bon": (analysis.best_of_n_objective, 0.1),
        "rwr": (analysis.reward_weighted_objective, 5.0),
        "dpo": (analysis.dpo_objective, 3.0),
        "reinforce": (analysis.reinforce_objective, 0.5),
    }
    runs = {"offline": analysis.offline_bandit, "on-policy": analysis.on_policy_bandit}

    def last(run, objective, rate):
        one = lambda key: run(key, FAR_REFERENCE, PEAK, objective=objective, learning_rate=rate).rewards[-1, -1]  # noqa: E731
        return float(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 3)).mean())

    return {(where, name): last(run, *o) for where, run in runs.items() for name, o in objectives.items()}


@pytest.mark.parametrize("name", ["bon", "rwr", "dpo", "reinforce"])
def test_on_policy_samples_beat_offline_ones_whatever_the_objective(final_rewards, name):
    assert final_rewards["on-policy", name] > final_rewards["offline", name] + 0.02, final_rewards


def test_a_negative_gradient_helps_offline(final_rewards):
    assert final_rewards["offline", "dpo"] > final_rewards["offline", "bon"], final_rewards


def test_a_peak_without_any_reference_mass_is_learnt_by_nobody():
    nowhere = FAR_REFERENCE.at[50:].set(-1e4)
    for run in (analysis.offline_bandit, analysis.on_policy_bandit):
        got = run(jax.random.key(0), nowhere, PEAK, rounds=300).logits
        np.testing.assert_allclose(jax.nn.softmax(got)[50:], 0, atol=1e-20)


def test_unknown_sizes_are_errors():
    for name in ("rounds", "inner_steps", "samples"):
        with pytest.raises(ValueError, match=f"^{name} must be an integer"):
            analysis.offline_bandit(jax.random.key(0), REFERENCE, REWARDS, **{name: 0})
    with pytest.raises(ValueError, match=r"^learning_rate must lie in"):
        analysis.on_policy_bandit(jax.random.key(0), REFERENCE, REWARDS, learning_rate=0.0)
    with pytest.raises(AssertionError):
        analysis.on_policy_bandit(jax.random.key(0), REFERENCE, REWARDS[:3])
