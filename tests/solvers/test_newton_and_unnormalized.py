"""Newton steps with a radius, and likelihoods without a normaliser, against what is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import solvers

G = jnp.array([3.0, -4.0])
H = jnp.array([[2.0, 0.5], [0.5, 1.0]])


def test_without_curvature_the_step_is_gamma_along_the_gradient_and_with_a_wide_radius_newtons():
    np.testing.assert_allclose(solvers.gns_newton_step(G, 0 * H, 0.2), -0.2 * G / 5, rtol=1e-5)
    np.testing.assert_allclose(solvers.gns_newton_step(G, H, 1e6), -jnp.linalg.solve(H, G), rtol=1e-4)
    np.testing.assert_array_equal(solvers.gns_newton_step(0 * G, 0 * H, 0.2), 0.0)


@pytest.mark.parametrize("gamma", [0.01, 0.3, 2.0, 50.0])
def test_the_step_is_never_longer_than_the_radius(gamma):
    assert jnp.linalg.norm(solvers.gns_newton_step(G, H, gamma)) <= gamma * (1 + 1e-5)


def test_a_quadratic_doubles_the_radius_every_time_and_is_solved():
    run = jax.jit(lambda x: solvers.gns_newton(lambda x: H @ x - G, lambda x: H, x, steps=12))(jnp.zeros(2))
    np.testing.assert_allclose(run.gammas[:6], 2.0 ** np.arange(6))  # then the gradient is rounding
    np.testing.assert_allclose(run.x, jnp.linalg.solve(H, G), rtol=1e-3)


def test_logistic_regression_converges_fast_where_newtons_first_step_would_overshoot():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(60, 3)), jnp.float32)
    labels = jnp.asarray(rng.random(60) < jax.nn.sigmoid(features @ jnp.array([2.0, -1.0, 0.5])))

    def loss(x):
        return jnp.mean(jax.nn.softplus(jnp.where(labels, -1, 1) * (features @ x))) + 1e-3 * jnp.sum(x**2)

    start = jnp.array([8.0, 8.0, -8.0])
    gradient, hessian = jax.grad(loss), jax.hessian(loss)
    run = jax.jit(lambda x: solvers.gns_newton(gradient, hessian, x, steps=25))(start)
    assert run.norms[-1] < 1e-4 and loss(run.x) < loss(start)
    newton = start - jnp.linalg.solve(hessian(start), gradient(start))
    assert loss(newton) > loss(start)


# --- unnormalised models: N(theta, 1) without its constant, noise N(0, 1) ---------------------------------------------


def score(theta, x):
    return -((x - theta) ** 2) / 2


def logq(x):
    return -(x**2) / 2 - 0.5 * jnp.log(2 * jnp.pi)


def test_a_constant_in_the_scores_is_taken_out_by_the_likelihood_and_by_nces_own_constant_alone():
    x, noise = jax.random.normal(jax.random.key(0), (2, 50))
    plain = solvers.unnormalized_nll(score(0.5, x), score(0.5, noise), logq(noise))
    shifted = solvers.unnormalized_nll(score(0.5, x) + 3, score(0.5, noise) + 3, logq(noise))
    np.testing.assert_allclose(plain, shifted, rtol=1e-5)

    def nce(shift, log_c):
        return solvers.nce_loss(score(0.5, x) + shift, logq(x), score(0.5, noise) + shift, logq(noise), log_c)

    np.testing.assert_allclose(nce(3.0, 3.0), nce(0.0, 0.0), rtol=1e-5)
    assert abs(nce(3.0, 0.0) - nce(0.0, 0.0)) > 0.1


def test_a_model_that_is_the_noise_has_the_nce_loss_two_log_two():
    x = jax.random.normal(jax.random.key(1), (30,))
    np.testing.assert_allclose(
        solvers.nce_loss(logq(x) + 1.0, logq(x), logq(x) + 1.0, logq(x), 1.0), 2 * np.log(2), rtol=1e-6
    )


def test_the_likelihood_estimates_that_of_the_normalised_model():
    noise = jax.random.normal(jax.random.key(2), (200_000,))
    x = jnp.array([0.2, 1.4, -0.3])
    got = solvers.unnormalized_nll(score(0.5, x), score(0.5, noise), logq(noise))
    exact = -jnp.mean(score(0.5, x)) + 0.5 * jnp.log(2 * jnp.pi)
    np.testing.assert_allclose(got, exact, atol=0.01)


def test_a_step_without_memory_descends_the_batchs_likelihood():
    x, noise = jax.random.normal(jax.random.key(3), (2, 1, 40))
    run = solvers.meco(score, logq, jnp.float32(0.3), x, noise, gamma=1.0, momentum=1.0, rate=0.1)
    gradient = jax.grad(lambda t: solvers.unnormalized_nll(score(t, x[0]), score(t, noise[0]), logq(noise[0])))(0.3)
    np.testing.assert_allclose(run.params, 0.3 - 0.1 * gradient, rtol=1e-4)


def test_small_batches_of_noise_with_a_tracked_partition_find_the_mean_and_the_constant():
    keys = jax.random.split(jax.random.key(4))
    data = 1.0 + jax.random.normal(keys[0], (3000, 8))
    noise = jax.random.normal(keys[1], (3000, 8))
    run = jax.jit(
        lambda: solvers.meco(score, logq, jnp.float32(0.0), data, noise, gamma=0.1, momentum=0.3, rate=0.01)
    )()
    np.testing.assert_allclose(run.path[-1500:].mean(), 1.0, atol=0.1)
    np.testing.assert_allclose(run.log_partition, 0.5 * np.log(2 * np.pi), atol=0.5)


def test_nce_is_flat_where_the_likelihood_is_not():
    """The mean is 16, the noise N(0, 1): on [12, 20] NCE hardly changes and the exact likelihood is a parabola."""
    x = 16 + jax.random.normal(jax.random.key(5), (500,))
    noise = jax.random.normal(jax.random.key(6), (500,))
    thetas, log_c = jnp.array([12.0, 16.0, 20.0]), 0.5 * jnp.log(2 * jnp.pi)
    nce = jax.vmap(lambda t: solvers.nce_loss(score(t, x), logq(x), score(t, noise), logq(noise), log_c))(thetas)
    exact = jax.vmap(lambda t: -jnp.mean(score(t, x)) + log_c)(thetas)
    assert (nce < 1e-3).all() and exact[0] - exact[1] > 7 and exact[2] - exact[1] > 7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solvers.gns_newton_step(G, H, 0.0), r"gamma must lie in \(0, inf\)"),
        (lambda: solvers.gns_newton(lambda x: x, lambda x: H, G, steps=0), "steps must be an integer"),
        (lambda: solvers.meco(score, logq, 0.0, G, G, gamma=1.5), r"gamma must lie in \(0, 1\]"),
    ],
)
def test_what_is_out_of_range_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
