"""Self-play against the reference solver, the bounds of the papers, and the limits in which two methods are one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_games import random_preferences

from alignment import games

RNG = np.random.default_rng(1)
P = random_preferences(RNG, (4,))
PI, MU = (np.log(RNG.dirichlet(np.ones(5), size=4)).astype(np.float32) for _ in range(2))
CYCLE = games.cyclic_preferences(5)
START = np.log(np.array([0.5, 0.2, 0.15, 0.1, 0.05], np.float32))
UNIFORM = jnp.full(5, -np.log(5.0))


def kl(nash, logps):
    return np.sum(np.exp(nash) * (nash - logps), axis=-1)


# ------------------------------------------------------------------------------------------------------ single steps


def test_the_nash_policy_is_a_fixed_point_of_mirror_descent_at_every_step_size():
    nash = games.regularised_nash(P, MU, tau=0.2).astype(np.float32)
    for eta in (0.2, 1.0, 20.0):
        np.testing.assert_allclose(games.omd_self_play_step(P, nash, MU, eta=eta, tau=0.2), nash, atol=2e-5)


def test_the_largest_step_of_mirror_descent_is_the_best_response():
    np.testing.assert_allclose(
        games.omd_self_play_step(P, PI, MU, eta=0.3, tau=0.3), games.best_response(P, PI, MU, tau=0.3), atol=1e-5
    )
    # Nash-MD's is the best response to the reference: where it comes from is forgotten.
    np.testing.assert_allclose(
        games.nash_md_step(P, PI, MU, eta=5.0, tau=0.2), games.best_response(P, MU, MU, tau=0.2), atol=1e-5
    )


def test_a_step_minimises_its_proximal_objective():
    eta, tau = 0.7, 0.2

    def omd(logits):
        logps = jax.nn.log_softmax(logits)
        slope = -games.win_rates(P, PI) + tau * (PI - MU)  # of the loss at pi_t, up to a constant
        return jnp.sum(jnp.exp(logps) * slope) + eta * jnp.sum(games.kl_divergence(logps, PI))

    np.testing.assert_allclose(jax.grad(omd)(games.omd_self_play_step(P, PI, MU, eta=eta, tau=tau)), 0, atol=1e-6)
    mixture = jax.nn.log_softmax((1 - eta * tau) * PI + eta * tau * MU)

    def nash_md(logits):
        logps = jax.nn.log_softmax(logits)
        return jnp.sum(games.kl_divergence(logps, mixture) - eta * games.win_rate(P, logps, mixture))

    np.testing.assert_allclose(jax.grad(nash_md)(games.nash_md_step(P, PI, MU, eta=eta, tau=tau)), 0, atol=1e-6)


def test_without_regularisation_all_are_multiplicative_weights():
    expected = games.multiplicative_weights(P, PI, eta=0.5, steps=20)
    for run in (
        games.omd_self_play(P, PI, MU, eta=2.0, tau=0.0, steps=20),
        games.nash_md(P, PI, MU, eta=0.5, tau=0.0, steps=20),
    ):
        np.testing.assert_allclose(run.iterates, expected.iterates, atol=1e-4)
        np.testing.assert_allclose(run.averages, expected.averages, atol=1e-4)


def test_a_constant_added_to_the_win_rates_changes_nothing():
    """The diagonal of every game is 1/2, so a constant cannot come from P; the formula of the paper keeps it."""
    plain = jax.nn.log_softmax(games.win_rates(P, PI) / 0.7 + (0.2 / 0.7) * MU + (1 - 0.2 / 0.7) * PI)
    np.testing.assert_allclose(games.omd_self_play_step(P, PI, MU, eta=0.7, tau=0.2), plain, atol=1e-5)


def test_a_step_without_regularisation_beats_the_policy_before_it():
    for eta in (0.5, 3.0):
        after = games.omd_self_play_step(P, PI, MU, eta=eta, tau=0.0)
        assert np.all(games.win_rate(P, after, PI) >= 0.5 + eta * games.kl_divergence(after, PI) - 1e-6)


@pytest.mark.parametrize("eta,tau", [(0.5, 0.1), (0.05, 1.0), (2.0, 0.5)])
def test_each_step_of_nash_md_comes_closer_as_the_paper_bounds(eta, tau):
    nash = games.regularised_nash(P, MU, tau=tau)
    bound = (1 - eta * tau) * kl(nash, PI) + 2 * eta**2
    assert np.all(kl(nash, games.nash_md_step(P, PI, MU, eta=eta, tau=tau)) <= bound + 1e-6)


@pytest.mark.parametrize("eta,tau", [(2.0, 0.1), (20.0, 1.0)])
def test_each_step_of_mirror_descent_comes_closer_as_the_paper_bounds(eta, tau):
    nash = games.regularised_nash(P, MU, tau=tau)
    after = games.omd_self_play_step(P, PI, MU, eta=eta, tau=tau)
    reach = max(float(np.abs(x - MU).max()) for x in (PI, nash, after))
    bound = (1 - tau / eta) * kl(nash, PI) + 8 * max(reach * tau, 1.0) ** 2 / eta**2
    assert np.all(kl(nash, after) <= bound + 1e-6)


# -------------------------------------------------------------------------------------------------------------- runs


def test_decreasing_steps_stay_below_the_bounds_of_the_papers():
    steps, tau = 300, 0.5
    nash, t = games.regularised_nash(P, MU, tau=tau), np.arange(1, steps + 1)[:, None]
    run = games.nash_md_decreasing(P, MU, MU, tau=tau, steps=steps)
    assert np.all(kl(nash, run.iterates[1:]) <= 8 / (tau**2 * (t + 1)))
    np.testing.assert_allclose(run.iterates[1], games.best_response(P, MU, MU, tau=tau), atol=1e-5)
    other = games.nash_md_decreasing(P, PI, MU, tau=tau, steps=steps)
    np.testing.assert_allclose(other.iterates[1:], run.iterates[1:], atol=1e-5)
    run = games.omd_self_play_decreasing(P, MU, MU, tau=tau, steps=steps)
    constant = max(float(np.abs(run.iterates - MU).max()) * tau, 1.0)
    assert np.all(kl(nash, run.iterates[:-1]) <= 32 * constant**2 / (tau**2 * (t + 1)))
    assert np.all(kl(nash, run.iterates[-1]) < 1e-4)


def test_the_fixed_point_of_nash_md_with_constant_steps_is_off_by_an_amount_that_falls_with_them():
    tau, nash = 0.2, games.regularised_nash(P, MU, tau=0.2)
    # vmap over the step size: one compilation for all.
    etas = jnp.array([0.4, 0.1, 0.025])
    ends = jax.vmap(lambda eta: games.nash_md(P, MU, MU, eta=eta, tau=tau, steps=4000).iterates[-1])(etas)
    off = np.array([kl(nash, end).max() for end in ends])
    assert off[0] > 3 * off[1] > 9 * off[2] and off[0] > 1e-4
    omd = games.omd_self_play(P, MU, MU, eta=10.0, tau=tau, steps=2000).iterates[-1]
    assert kl(nash, omd).max() < 1e-6


def test_a_constant_game_goes_back_to_the_reference_all_the_way():
    even = np.full_like(P, 0.5)
    distances = games.kl_divergence(
        games.nash_md(even, PI, MU, eta=1.0, tau=0.3, steps=30).iterates, jnp.tile(MU, (31, 1, 1))
    )
    assert np.all(np.diff(distances, axis=0) <= 1e-6) and np.all(distances[-1] < 1e-4)


def test_the_optimistic_policy_forecasts_and_does_not_keep_the_forecast():
    eta, run = 0.4, games.optimistic_omd(P, PI, eta=0.4, steps=6).iterates
    rates = np.stack([games.win_rates(P, policy) for policy in run])
    for t in range(6):
        before = rates[t - 1] if t else 0.0
        change = run[t + 1] - run[t] - eta * (2 * rates[t] - before)
        np.testing.assert_allclose(change - change.mean(-1, keepdims=True), 0, atol=1e-5)
    doubled = games.multiplicative_weights(P, PI, eta=2 * eta, steps=6).iterates
    np.testing.assert_allclose(run[1], doubled[1], atol=1e-5)
    assert np.abs(run[2] - doubled[2]).max() > 1e-2


def test_a_full_nash_policy_is_a_fixed_point_and_uniform_stays_uniform_on_a_cycle():
    for run in (
        games.optimistic_omd(CYCLE, UNIFORM, eta=1.0, steps=50),
        games.multiplicative_weights(CYCLE, UNIFORM, steps=50),
        games.nash_md(CYCLE, UNIFORM, UNIFORM, steps=50),
    ):
        np.testing.assert_allclose(run.iterates, jnp.tile(UNIFORM, (51, 1)), atol=1e-4)
        np.testing.assert_allclose(run.averages, jnp.tile(UNIFORM, (51, 1)), atol=1e-4)


def test_gaps_on_the_five_cycle():
    """Plain weights spiral out and only their average converges; the optimistic ones converge themselves."""
    plain = games.multiplicative_weights(CYCLE, START, eta=1.0, steps=2000)
    assert games.duality_gap(CYCLE, plain.iterates[-1]) > 0.99 > 0.05 > games.duality_gap(CYCLE, plain.averages[-1])
    optimistic = games.optimistic_omd(CYCLE, START, eta=1.0, steps=2000)
    assert games.duality_gap(CYCLE, optimistic.iterates[-1]) < 1e-3
    assert games.duality_gap(CYCLE, optimistic.averages[-1]) < 2e-3
    regularised = games.omd_self_play(CYCLE, START, UNIFORM, eta=10.0, tau=0.1, steps=2000)
    assert games.regularised_duality_gap(CYCLE, regularised.iterates[-1], UNIFORM, tau=0.1) < 1e-5


def test_averages_are_the_means_of_the_policies_so_far():
    run = games.optimistic_omd(P, PI, eta=0.4, steps=5)
    assert run.iterates.shape == run.averages.shape == (6, 4, 5)
    for t in range(6):
        np.testing.assert_allclose(np.exp(run.averages[t]), np.exp(run.iterates[: t + 1]).mean(0), atol=1e-6)


# ---------------------------------------------------------------------------------------------------- sampled labels


def test_the_losses_are_stationary_at_the_exact_steps():
    def inpo(logits):
        return jnp.sum(games.inpo_population_loss(jax.nn.log_softmax(logits), PI, MU, P, eta=0.7, tau=0.2))

    np.testing.assert_allclose(jax.grad(inpo)(games.omd_self_play_step(P, PI, MU, eta=0.7, tau=0.2)), 0, atol=1e-5)
    assert np.abs(jax.grad(inpo)(PI)).max() > 1e-2
    # pi'_{t+1} from the anchor pi'_t = MU, and pi_{t+1} from the anchor pi'_{t+1}, both on pairs of pi_t = PI.
    kept = jax.nn.log_softmax(MU + 0.7 * games.win_rates(P, PI))
    for anchor, solution in ((MU, kept), (kept, jax.nn.log_softmax(MU + 1.4 * games.win_rates(P, PI)))):

        def onpo(logits, anchor=anchor):
            return jnp.sum(games.onpo_population_loss(jax.nn.log_softmax(logits), anchor, PI, P, eta=0.7))

        np.testing.assert_allclose(jax.grad(onpo)(solution), 0, atol=1e-5)


def test_the_population_loss_is_the_distance_to_the_win_rates_up_to_a_constant():
    eta, tau = 0.7, 0.2
    weights = np.exp(PI)[:, :, None] * np.exp(PI)[:, None, :]
    rates = np.asarray(games.win_rates(P, PI))

    def distance(policy):
        h = policy - (tau * MU + (eta - tau) * PI) / eta - rates / eta
        return np.sum(weights * np.square(h[:, :, None] - h[:, None, :]), axis=(1, 2))

    def offset(policy):
        return games.inpo_population_loss(policy, PI, MU, P, eta=eta, tau=tau) - distance(policy)

    np.testing.assert_allclose(offset(PI), offset(MU), rtol=1e-4, atol=1e-4)


def test_inpo_without_regularisation_is_onpo_and_labels_of_a_coin_ask_for_no_margin():
    inpo = games.inpo_population_loss(MU, PI, MU, P, eta=2.0, tau=0.0)
    np.testing.assert_allclose(inpo, games.onpo_population_loss(MU, PI, PI, P, eta=0.5), rtol=1e-5)
    even = np.full_like(P, 0.5)
    still = jax.nn.log_softmax((0.2 * MU + 0.5 * PI) / 0.7)
    # Without a margin every pair is off by 1 / (2 eta), and nothing is less.
    at_best = games.inpo_population_loss(still, PI, MU, even, eta=0.7, tau=0.2)
    np.testing.assert_allclose(at_best, 1 / 1.4**2, rtol=1e-5)
    assert np.all(games.inpo_population_loss(PI, PI, MU, even, eta=0.7, tau=0.2) > at_best)


def test_sampled_self_play_follows_the_exact_one_with_noise_that_falls_with_the_pairs():
    exact = games.omd_self_play(CYCLE, START, START, eta=5.0, tau=0.1, steps=60).iterates
    forecast = games.optimistic_omd(CYCLE, START, eta=0.3, steps=60).iterates
    off = []
    for pairs in (64, 4096):
        inpo = games.inpo_self_play(jax.random.key(0), CYCLE, START, eta=5.0, tau=0.1, pairs=pairs, steps=60)
        onpo = games.onpo_self_play(jax.random.key(0), CYCLE, START, eta=0.3, pairs=pairs, steps=60)
        off.append(
            [np.abs(np.exp(a) - np.exp(b)).max() for a, b in ((inpo.iterates, exact), (onpo.iterates, forecast))]
        )
    assert np.all(np.array(off[1]) < 0.06) and np.all(4 * np.array(off[1]) < off[0])


def test_a_response_that_is_never_drawn_keeps_its_place():
    rare = jnp.asarray([-40.0, -0.7, -0.8])
    run = games.inpo_self_play(jax.random.key(1), games.cyclic_preferences(3), rare, eta=2.0, tau=0.5, pairs=8, steps=3)
    assert np.isfinite(run.iterates).all() and np.all(run.iterates[:, 0] < -35)


# ----------------------------------------------------------------------------------------------------------- options


def test_runs_compile_and_vmap_over_games_and_step_sizes():
    etas = jnp.array([0.1, 0.5])
    swept = jax.jit(jax.vmap(lambda eta: games.optimistic_omd(P, PI, eta=eta, steps=10).iterates[-1]))(etas)
    for eta, got in zip((0.1, 0.5), swept, strict=True):
        np.testing.assert_allclose(got, games.optimistic_omd(P, PI, eta=eta, steps=10).iterates[-1], atol=1e-5)
    each = jax.vmap(lambda p, pi: games.optimistic_omd(p, pi, eta=0.1, steps=10).iterates[-1])(P, PI)
    np.testing.assert_allclose(each, swept[0], atol=1e-5)


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: games.omd_self_play(P, PI, MU, eta=0.1, tau=0.2), r"tau must lie in \[0, eta\], got 0.2"),
        (lambda: games.nash_md(P, PI, MU, eta=2.0, tau=0.6), r"tau must lie in \[0, 1 / eta\], got 0.6"),
        (lambda: games.optimistic_omd(P, PI, eta=0.0), r"eta must lie in \(0, inf\)"),
        (lambda: games.multiplicative_weights(P, PI, steps=0), r"steps must be an integer"),
        (lambda: games.inpo_self_play(jax.random.key(0), P[0], MU[0], pairs=0), r"pairs must be an integer"),
        (lambda: games.regularised_nash(P, MU, tau=0.0), r"tau must lie in \(0, inf\)"),
    ],
)
def test_out_of_range_is_an_error_that_states_the_range(call, words):
    with pytest.raises(ValueError, match=words):
        call()
