"""What the exact optimum of DPO ranks first; the accuracies made of it are in tests/test_metrics.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis, losses


def draw(size=100):
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.01, 0.99, size)
    return [jnp.asarray(x, jnp.float32) for x in (*rng.normal(-20, 4, size=(2, size)), alpha)]


def test_by_hand():
    # -3 - -2 + log(0.75 / 0.25) / 0.5 = -1 + 2 log 3
    got = analysis.idealized_log_ratio(jnp.array([-3.0]), jnp.array([-2.0]), jnp.array([0.75]), beta=0.5)
    np.testing.assert_allclose(got, [-1 + 2 * np.log(3)], rtol=1e-6)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 5.0])
def test_the_optimum_gives_the_raters_proportion_back(beta):
    """The optimum of DPO is where the Bradley-Terry probability of the implicit rewards is alpha."""
    chosen, rejected, alpha = draw()
    ratio = analysis.idealized_log_ratio(chosen, rejected, alpha, beta=beta)
    got = 1 / (1 + np.exp(-beta * np.asarray(ratio - (chosen - rejected), np.float64)))
    np.testing.assert_allclose(got, alpha, atol=1e-4)


def test_it_is_where_the_population_dpo_loss_is_flat():
    """There the share alpha of the raters pulls as hard one way as the share 1 - alpha the other."""
    chosen, rejected, alpha = draw()
    ratio = analysis.idealized_log_ratio(chosen, rejected, alpha, beta=0.5)

    def population(h):
        zero = jnp.zeros_like(h)
        right = losses.dpo(h, zero, chosen, rejected, beta=0.5)
        return jnp.sum(alpha * right + (1 - alpha) * losses.dpo(zero, h, rejected, chosen, beta=0.5))

    np.testing.assert_allclose(jax.grad(population)(ratio), 0, atol=1e-5)


def test_swapping_the_pair_swaps_the_sign():
    chosen, rejected, alpha = draw()
    np.testing.assert_allclose(
        analysis.idealized_log_ratio(chosen, rejected, alpha),
        -analysis.idealized_log_ratio(rejected, chosen, 1 - alpha), rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_a_unanimous_pair_counts_as_the_odds_of_the_floor():
    zero = jnp.zeros(2)
    got = analysis.idealized_log_ratio(zero, zero, jnp.array([1.0, 0.0]), beta=1.0)
    np.testing.assert_allclose(got, [np.log(1000), -np.log(1000)], rtol=1e-5)
    np.testing.assert_allclose(
        analysis.idealized_log_ratio(zero, zero, jnp.array([1.0, 0.0]), beta=1.0, floor=0.1)[0], np.log(10), rtol=1e-5
    )
