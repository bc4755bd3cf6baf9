"""Losses of self-play on games that can be solved by hand: a few completions, all log-probs in a table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses

Y = 5


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def game():
    """Log-probs of pi_t and of the reference over Y completions, and P(i preferred to j)."""
    rng = np.random.default_rng(3)
    gaps = rng.normal(size=(Y, Y))
    gaps = gaps - gaps.T
    old, reference = (x - np.log(np.exp(x).sum()) for x in rng.normal(size=(2, Y)))
    return old, reference, 1 / (1 + np.exp(-gaps))


def table(logps, i, j):
    return logps[i], logps[j]


def every_pair():
    return (x.reshape(-1) for x in np.meshgrid(np.arange(Y), np.arange(Y), indexing="ij"))


def population(loss, old, preferences):
    """logits -> mean of the loss over pairs from pi_t and both labels; `loss(logps, i, j)` has i as the chosen."""
    i, j = every_pair()
    weights = np.exp(old[i] + old[j])
    labels = preferences[i, j]

    def of(logits):
        logps = jax.nn.log_softmax(logits)
        return jnp.sum(weights * (labels * loss(logps, i, j) + (1 - labels) * loss(logps, j, i)))

    return of


def stationary(of, logps):
    np.testing.assert_allclose(jax.grad(of)(jnp.asarray(logps)), 0.0, atol=1e-9)
    # and a policy next to it is not, so that the gradient says something
    assert np.abs(jax.grad(of)(jnp.asarray(logps) + 0.3 * np.arange(Y))).max() > 1e-3


def pairs_of(policy, reference, i, j):
    return (*table(policy, i, j), *table(jnp.asarray(reference), i, j))


# --- SPIN, online DPO, practical DNO: DPO's loss, where the pairs make the method ------------------------------------


@pytest.mark.parametrize("name, key", [("spin", "beta"), ("online_dpo", "beta"), ("dno_prct", "eta")])
def test_the_loss_is_dpo_and_log_2_at_the_reference(name, key):
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=7) for _ in range(4)]
    kernel = getattr(losses, name)
    np.testing.assert_allclose(kernel(*drawn, **{key: 0.3}), losses.dpo(*drawn, beta=0.3))
    np.testing.assert_allclose(kernel(*drawn[:2], *drawn[:2]), np.log(2), rtol=1e-6)


def test_the_hinge_of_spin_begins_at_1():
    drawn = [np.random.default_rng(0).normal(size=7) for _ in range(2)]
    np.testing.assert_allclose(losses.spin_hinge(*drawn, *drawn), 1.0)


def test_the_data_being_the_opponent_is_a_fixed_point_of_spin(game):
    old, _, _ = game
    i, j = every_pair()

    def of(logits):
        policy = jax.nn.log_softmax(logits)
        return jnp.sum(np.exp(old[i] + old[j]) * losses.spin(*pairs_of(policy, old, i, j), beta=0.7))

    stationary(of, old)


def test_the_exact_step_of_spin_with_beta_1_arrives_at_the_data(game):
    """Pairs (data, pi_t): the minimiser is pi_t (p_data / pi_t)^(1 / beta)."""
    old, data, _ = game
    i, j = every_pair()
    for beta in (1.0, 0.5):

        def of(logits, beta=beta):
            policy = jax.nn.log_softmax(logits)
            return jnp.sum(np.exp(data[i] + old[j]) * losses.spin(*pairs_of(policy, old, i, j), beta=beta))

        stationary(of, old + (data - old) / beta)


# --- SPPO ------------------------------------------------------------------------------------------------------------


def test_sppo_is_zero_where_policy_and_win_rates_are_even():
    logps, even = np.array([-3.0, -1.0]), np.array([0.5, 0.5])
    np.testing.assert_array_equal(losses.sppo(logps, logps, logps, logps, even, even), 0.0)


def test_sppo_puts_each_log_ratio_at_its_scaled_advantage():
    rng = np.random.default_rng(1)
    reference, rates = rng.normal(size=(2, 6)), rng.random((2, 6))
    at = reference + 4.0 * (rates - 0.5)
    np.testing.assert_allclose(losses.sppo(*at, *reference, *rates, eta=4.0), 0.0, atol=1e-12)


def test_hard_sppo_is_twice_sppo_at_certain_wins():
    drawn = [np.random.default_rng(i).normal(size=6) for i in range(4)]
    soft = losses.sppo(*drawn, np.ones(6), np.zeros(6), eta=5.0)
    np.testing.assert_allclose(losses.sppo_hard(*drawn, eta=5.0), 2 * soft)


# --- IPO-MD, INPO, ONPO ----------------------------------------------------------------------------------------------


def test_soft_labels_of_ipo_are_the_mean_over_hard_ones():
    drawn = [np.random.default_rng(i).normal(size=6) for i in range(4)]
    p = np.random.default_rng(9).random(6)
    swapped = [drawn[k] for k in (1, 0, 3, 2)]
    mean = p * losses.ipo(*drawn, tau=0.4) + (1 - p) * losses.ipo(*swapped, tau=0.4)
    np.testing.assert_allclose(losses.ipo_md(*drawn, p, tau=0.4), mean)


def test_the_regularised_nash_policy_is_stationary_for_online_ipo(game):
    """pi ~ ref exp(P pi / tau), found by iteration; the pairs are from pi itself and held fixed."""
    _, reference, preferences = game
    tau, nash = 1.0, reference
    for _ in range(300):
        nash = np.asarray(jax.nn.log_softmax(reference + preferences @ np.exp(nash) / tau))
    i, j = every_pair()

    def of(logits):
        policy = jax.nn.log_softmax(logits)
        return jnp.sum(
            np.exp(nash[i] + nash[j]) * losses.ipo_md(*pairs_of(policy, reference, i, j), preferences[i, j], tau=tau)
        )

    stationary(of, nash)


def inpo_of(policy, old, reference, i, j, **settings):
    given = [*table(policy, i, j), *table(jnp.asarray(old), i, j), *table(jnp.asarray(reference), i, j)]
    return losses.inpo(*given, **settings)


def test_inpo_finds_the_mirror_descent_step(game):
    """pi_{t+1} ~ exp(P pi_t / eta) ref^(tau / eta) pi_t^(1 - tau / eta)."""
    old, reference, preferences = game
    eta, tau = 0.8, 0.3
    step = preferences @ np.exp(old) / eta + tau / eta * reference + (1 - tau / eta) * old
    of = population(lambda pi, i, j: inpo_of(pi, old, reference, i, j, eta=eta, tau=tau), old, preferences)
    stationary(of, step)


def test_inpos_population_loss_is_a_regression_on_win_rates_up_to_a_constant(game):
    old, reference, preferences = game
    eta, tau = 0.8, 0.3
    of = population(lambda pi, i, j: inpo_of(pi, old, reference, i, j, eta=eta, tau=tau), old, preferences)
    i, j = every_pair()
    wins = preferences @ np.exp(old)

    def regression(logits):
        d = [x[i] - x[j] for x in (jax.nn.log_softmax(logits), reference, old)]
        h = d[0] - tau / eta * d[1] - (1 - tau / eta) * d[2]
        return jnp.sum(np.exp(old[i] + old[j]) * jnp.square(h - (wins[i] - wins[j]) / eta))

    gaps = [of(x) - regression(x) for x in np.random.default_rng(0).normal(size=(3, Y))]
    np.testing.assert_allclose(gaps, gaps[0])


def test_labels_by_the_toss_of_a_coin_teach_inpo_a_margin_of_zero(game):
    old, reference, _ = game
    eta, tau = 0.8, 0.3
    of = population(lambda pi, i, j: inpo_of(pi, old, reference, i, j, eta=eta, tau=tau), old, np.full((Y, Y), 0.5))
    stationary(of, tau / eta * reference + (1 - tau / eta) * old)


def test_inpo_is_ipo_at_the_first_iteration_and_onpo_without_the_tie():
    policy, old, reference = np.random.default_rng(5).normal(size=(3, 2, 6))
    np.testing.assert_allclose(
        losses.inpo(*policy, *reference, *reference, eta=0.4, tau=0.1), losses.ipo(*policy, *reference, tau=0.4)
    )
    np.testing.assert_allclose(
        losses.inpo(*policy, *old, *reference, eta=1 / 2.5, tau=0.0), losses.onpo(*policy, *old, eta=2.5)
    )


def test_onpo_finds_the_multiplicative_weights_step_from_its_anchor(game):
    """Pairs of the played policy, anchored elsewhere: pi ~ anchor exp(eta P pi_played)."""
    played, anchor, preferences = game
    of = population(lambda pi, i, j: losses.onpo(*pairs_of(pi, anchor, i, j), eta=1.3), played, preferences)
    stationary(of, anchor + 1.3 * preferences @ np.exp(played))


# --- DNO -------------------------------------------------------------------------------------------------------------


def test_dno_finds_the_soft_policy_iteration_step_from_any_pairs(game):
    old, sampler, preferences = game
    wins = preferences @ np.exp(old)
    i, j = every_pair()

    def of(logits):
        policy = jax.nn.log_softmax(logits)
        return jnp.sum(
            np.exp(sampler[i] + sampler[j]) * losses.dno(*pairs_of(policy, old, i, j), wins[i], wins[j], eta=0.6)
        )

    stationary(of, old + wins / 0.6)


def test_dno_is_log_2_at_equal_win_rates_and_an_even_margin_and_dno_prct_at_certain_ones():
    policy, old = np.random.default_rng(5).normal(size=(2, 2, 6))
    even, certain = np.full(6, 0.3), np.full(6, 1e3)
    np.testing.assert_allclose(losses.dno(*old, *old, even, even), np.log(2))
    np.testing.assert_allclose(
        losses.dno(*policy, *old, certain, even, eta=0.4), losses.dno_prct(*policy, *old, eta=0.4)
    )


def test_dno_less_the_entropy_of_its_labels_is_a_divergence():
    drawn, rates = np.random.default_rng(5).normal(size=(4, 50)), np.random.default_rng(6).random((2, 50))
    z = 1 / (1 + np.exp(rates[1] - rates[0]))
    entropy = -z * np.log(z) - (1 - z) * np.log(1 - z)
    d = 0.4 * (drawn[0] - drawn[1] - drawn[2] + drawn[3])
    q = 1 / (1 + np.exp(-d))
    divergence = z * np.log(z / q) + (1 - z) * np.log((1 - z) / (1 - q))
    np.testing.assert_allclose(losses.dno(*drawn, *rates, eta=0.4) - entropy, divergence)


# --- XPO, SELM -------------------------------------------------------------------------------------------------------


def sampled(seed=0, size=6, samples=3):
    rng = np.random.default_rng(seed)
    pair = rng.normal(size=(4, size))
    mask = rng.random((size, samples, 2)) < 0.7
    mask[:, 0] = True
    return pair, rng.normal(size=(size, samples)), rng.normal(size=(size, samples)), mask


def test_without_a_bonus_xpo_and_selm_are_dpo():
    pair, policy, reference, mask = sampled()
    np.testing.assert_allclose(losses.xpo(*pair, policy, mask, beta=0.3, alpha=0.0), losses.dpo(*pair, beta=0.3))
    np.testing.assert_allclose(
        losses.selm(*pair, policy, reference, mask, beta=0.3, alpha=0.0), losses.dpo(*pair, beta=0.3)
    )


def test_xpo_grows_by_alpha_times_the_log_prob_of_the_samples():
    pair, policy, _, mask = sampled(samples=1)
    slope = losses.xpo(*pair, policy, mask, beta=0.3, alpha=2.0) - losses.xpo(*pair, policy, mask, beta=0.3, alpha=1.0)
    np.testing.assert_allclose(slope, policy[:, 0])


def test_the_bonus_of_selm_has_the_gradient_of_xpos_with_alpha_beta():
    pair, policy, reference, mask = sampled()
    ours = jax.grad(lambda p: losses.xpo(*pair, p, mask, beta=0.3, alpha=0.06).sum())(policy)
    theirs = jax.grad(lambda p: losses.selm(*pair, p, reference, mask, beta=0.3, alpha=0.2).sum())(policy)
    np.testing.assert_allclose(ours, theirs)


def test_the_expected_bonus_takes_from_what_the_reference_writes(game):
    """Its gradient in the logits is alpha (ref - pi), and selm's value -alpha beta KL(ref || pi)."""
    logits, reference, _ = game
    weights, zeros = np.exp(reference), np.zeros(Y)
    mask = np.ones((Y, 1, 1), bool)

    def bonus(kernel, logits, *more, **settings):
        logps = jax.nn.log_softmax(logits)[:, None]
        with_bonus = kernel(zeros, zeros, zeros, zeros, logps, *more, mask, alpha=0.2, **settings)
        return jnp.sum(weights * (with_bonus - np.log(2)))

    gradient = jax.grad(lambda x: bonus(losses.xpo, x))(jnp.asarray(logits))
    np.testing.assert_allclose(gradient, 0.2 * (weights - np.exp(logits)), atol=1e-12)
    divergence = np.sum(weights * (reference - logits))
    np.testing.assert_allclose(bonus(losses.selm, logits, reference[:, None], beta=0.3), -0.06 * divergence)


# --- PIT -------------------------------------------------------------------------------------------------------------


PIT = (np.tile([1.0, 0.5, 0.5, 0.0], (6, 1)), np.ones((6, 4, 1), bool))  # labels and mask


def test_pit_sees_differences_only_and_begins_at_4_log_2():
    gaps = np.random.default_rng(0).normal(size=(6, 4))
    np.testing.assert_allclose(losses.pit_gap_loss(np.zeros((6, 4)), *PIT), 4 * np.log(2))
    np.testing.assert_allclose(losses.pit_gap_loss(gaps + 7.0, *PIT), losses.pit_gap_loss(gaps, *PIT))


def test_a_gap_that_is_a_difference_of_rewards_makes_pit_four_times_bradley_terry():
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 6))
    gaps = np.stack([chosen - rejected, np.zeros(6), np.zeros(6), rejected - chosen], -1)
    theirs = 4 * losses.bt_reward_loss(chosen, rejected)
    np.testing.assert_allclose(losses.pit_gap_loss(gaps, *PIT), theirs)
