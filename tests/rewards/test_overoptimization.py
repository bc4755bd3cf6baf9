"""Scaling laws of over-optimisation: planted coefficients come back, peaks are where the closed forms say."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment.rewards import overoptimization as laws

DISTANCES = jnp.linspace(0.0, 6.0, 40)


def test_planted_coefficients_come_back_with_their_peaks():
    best = laws.fit_best_of_n(DISTANCES, laws.best_of_n_reward(DISTANCES, 2.0, 0.4))
    np.testing.assert_allclose(best, (2.0, 0.4, 2.0 / 0.8, 4.0 / 1.6), rtol=1e-3)
    rl = laws.fit_rl(DISTANCES, laws.rl_reward(DISTANCES, 1.5, 0.8))
    np.testing.assert_allclose(rl[:3], (1.5, 0.8, np.exp(1.5 / 0.8 - 1)), rtol=1e-3)


def test_at_the_peak_the_slope_is_zero_and_at_the_start_the_reward_is():
    for law, fit in ((laws.best_of_n_reward, laws.fit_best_of_n), (laws.rl_reward, laws.fit_rl)):
        found = fit(DISTANCES, law(DISTANCES, 1.2, 0.5))
        slope = jax.grad(lambda d, law=law, f=found: law(d, f.alpha, f.beta))(found.peak_distance)
        np.testing.assert_allclose(slope, 0.0, atol=1e-4)
        np.testing.assert_allclose(law(jnp.zeros(1), 1.2, 0.5), 0.0)
        np.testing.assert_allclose(found.peak_reward, law(DISTANCES, 1.2, 0.5).max(), rtol=1e-2)


def test_best_of_n_kl_is_the_exact_one_of_a_uniform_quantile():
    """Density of the best of n uniforms is n u^(n - 1); its KL to the uniform by quadrature."""
    u = (np.arange(200_000) + 0.5) / 200_000
    for n in (1, 4, 16):
        density = n * u ** (n - 1)
        np.testing.assert_allclose(laws.best_of_n_kl(jnp.float32(n)), np.mean(density * np.log(density)), atol=1e-3)


def test_a_run_that_never_turns_is_not_overoptimised():
    np.testing.assert_allclose(laws.overoptimization(jnp.array([[0.0, 1.0, 2.0], [0.0, 2.0, 0.5]])), [0.0, 1.5])
