"""Smoothed gradients on quadratics and on a cubic, whose derivatives are known; and in a training step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alignment.losses
from alignment import objective
from alignment.training import smoothing

A = {"a": jnp.array([[2.0, 0.5], [0.5, 1.0]]), "b": jnp.array([[3.0]])}
X = {"a": jnp.array([1.0, -1.0]), "b": jnp.array([0.5])}


def of_quadratic(x):
    return jax.tree.map(lambda m, v: m @ v, A, x)


def times_a(x):
    return of_quadratic(x)


def of_cubic(x):  # the gradient of sum x^3
    return jax.tree.map(lambda v: 3 * v**2, x)


G = of_quadratic(X)
NORM = optax.global_norm(G)


def close(got, expected, **tolerance):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


def plus(x, scale, y):
    return jax.tree.map(lambda a, b: a + scale * b, x, y)


def test_sam_on_a_quadratic_adds_the_curvature_along_the_one_global_unit_vector():
    close(smoothing.sam_gradient(of_quadratic, X, rho=0.3), plus(G, 0.3 / NORM, times_a(G)))


def test_sam_is_the_gradient_of_the_norm_penalty_to_first_order():
    sam = smoothing.sam_gradient(of_cubic, X, rho=1e-3)
    close(sam, smoothing.gradient_penalty_gradient(of_cubic, X, rho=1e-3), rtol=1e-5, atol=2e-5)


def test_the_gradient_penalty_is_differentiated():
    def penalised(x):
        return sum(jnp.sum(v**3) for v in x.values()) + 0.7 * optax.global_norm(of_cubic(x))

    close(smoothing.gradient_penalty_gradient(of_cubic, X, rho=0.7), jax.grad(penalised)(X))


def test_the_curvature_penalty_is_differentiated_with_its_direction_held():
    unit = jax.tree.map(lambda g: g / optax.global_norm(of_cubic(X)), of_cubic(X))

    def penalised(x):
        ahead = of_cubic(plus(x, 0.2, unit))
        return sum(jnp.sum(v**3) for v in x.values()) + 0.7 * optax.global_norm(plus(ahead, -1.0, of_cubic(x)))

    close(smoothing.curvature_penalty_gradient(of_cubic, X, rho=0.7, mu=0.2), jax.grad(penalised)(X))
    # On a quadratic the penalty is rho mu |A g| / |g| with v held: no gradient.
    close(smoothing.curvature_penalty_gradient(of_quadratic, X, rho=0.7, mu=0.2), G)


def test_a_noise_and_its_negative_are_exact_on_a_quadratic():
    noise = smoothing.gaussian_noises(jax.random.key(0), X, sigma=0.5, draws=2)
    both = jax.tree.map(lambda n: jnp.concatenate([n, -n]), noise)
    close(smoothing.randomized_smoothing_gradient(of_quadratic, X, both), G)
    alone = smoothing.randomized_smoothing_gradient(of_quadratic, X, noise)
    assert abs(alone["a"] - G["a"]).max() > 0.01


def test_without_strength_every_smoother_is_the_plain_gradient_and_at_a_stationary_point_finite():
    zero = jax.tree.map(jnp.zeros_like, X)
    for at in (X, zero):
        none = smoothing.gaussian_noises(jax.random.key(0), at, sigma=0.0)
        for got in (
            smoothing.sam_gradient(of_quadratic, at, rho=0.0),
            smoothing.gradient_penalty_gradient(of_quadratic, at, rho=0.0),
            smoothing.curvature_penalty_gradient(of_quadratic, at, rho=0.0),
            smoothing.randomized_smoothing_gradient(of_quadratic, at, none),
        ):
            close(got, of_quadratic(at))
    for got in (smoothing.sam_gradient, smoothing.gradient_penalty_gradient, smoothing.curvature_penalty_gradient):
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(got(of_quadratic, zero)))


# --- in a training step, of two terms that are powers of the parameters -----------------------------------------------
SIDES = ("forget", "retain")
SETTINGS = {"rho": 0.3, "mu": 0.2, "sigma": 0.1, "draws": 2}
TERMS = objective.bind(
    {"npo": {"weight": 0.7}, "sft": {"side": "retain", "weight": 0.3}}, alignment.losses, "objective", SIDES, ()
)


def losses(params, frozen_params, method_state, rows):
    del frozen_params, method_state, rows
    sums = {"npo": sum(jnp.sum(v**3) for v in params.values()), "sft": sum(jnp.sum(v**2) for v in params.values())}
    return sums, {"logged": jnp.float32(4.0)}, {}


@pytest.mark.parametrize("kind", smoothing.KINDS)
def test_only_the_forget_terms_are_smoothed_and_the_loss_is_that_of_the_current_weights(kind):
    denominators, seeds = {"npo": jnp.float32(2.0), "sft": jnp.float32(5.0)}, {"seeds": jnp.array([3, 4], jnp.uint32)}
    gradient = smoothing.make_gradient(losses, TERMS, kind, SETTINGS)
    (loss, (parts, logged, _)), got = jax.jit(lambda p: gradient(p, {}, {}, denominators, seeds))(X)
    cubic, square = (sum(jnp.sum(v**n) for v in X.values()) for n in (3, 2))
    close([loss, parts["npo"], logged["logged"]], [0.35 * cubic + 0.06 * square, cubic / 2, 4.0])

    def of_forget(params):
        return jax.tree.map(lambda v: 0.35 * 3 * v**2, params)

    noises = smoothing.gaussian_noises(jax.random.key(3), X, sigma=0.1, draws=2)
    smoothed = {
        "sam": lambda: smoothing.sam_gradient(of_forget, X, rho=0.3),
        "gradient_penalty": lambda: smoothing.gradient_penalty_gradient(of_forget, X, rho=0.3),
        "curvature_penalty": lambda: smoothing.curvature_penalty_gradient(of_forget, X, rho=0.3, mu=0.2),
        "randomized_smoothing": lambda: smoothing.randomized_smoothing_gradient(of_forget, X, noises),
    }[kind]()
    close(got, plus(smoothed, 0.12, X))
    assert optax.global_norm(plus(smoothed, -1.0, of_forget(X))) > 1e-3


def test_an_objective_that_forgets_nothing_cannot_be_smoothed():
    terms = objective.bind({"sft": {"side": "retain"}}, alignment.losses, "objective", SIDES, ())
    with pytest.raises(ValueError, match="none does"):
        smoothing.make_gradient(None, terms, "sam", SETTINGS)
    with pytest.raises(ValueError, match=r"config\.training\.gradient"):
        smoothing.make_gradient(None, terms, "smooth", SETTINGS)
