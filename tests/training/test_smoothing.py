"""Smoothed gradients on quadratics and on a cubic, whose derivatives are known; and in a training step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_steps

import alignment.losses
from alignment import objective
from alignment.training import smoothing, step

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


# --- in a training step: rows of tiny_steps, whose rejected side stands for what is to be forgotten -------------------
SIDES = ("retain", "forget")
SPEC = {"npo": {"weight": 0.7, "beta": 0.5}, "sft": {"side": "retain", "weight": 0.3}}
SETTINGS = {"rho": 0.05, "mu": 0.1, "sigma": 0.01, "draws": 2}


def setup():
    params = tiny_steps.MODEL.init(jax.random.key(0))
    batch = {**tiny_steps.batch(4), "seeds": jnp.arange(4, dtype=jnp.uint32)}
    terms = objective.bind(SPEC, alignment.losses, "objective", SIDES, ())
    frozen = {"reference": tiny_steps.MODEL.init(jax.random.key(1))}
    losses = step.make_losses(tiny_steps.MODEL, {"reference": tiny_steps.MODEL}, terms, (), SIDES)
    return params, frozen, batch, terms, losses


@pytest.mark.parametrize("kind", smoothing.KINDS)
def test_only_the_forget_terms_are_smoothed_and_the_loss_is_that_of_the_current_weights(kind):
    params, frozen, batch, terms, losses = setup()
    denominators = objective.weights(terms, SIDES, batch)

    def parts(params):
        return step.divide(losses(params, frozen, {}, batch)[0], denominators)

    gradient = smoothing.make_gradient(losses, terms, kind, SETTINGS)
    (loss, (logged, _, _)), got = jax.jit(lambda p: gradient(p, frozen, {}, denominators, batch))(params)
    values = parts(params)
    close(loss, 0.7 * values["npo"] + 0.3 * values["sft"])
    close(logged["npo"], values["npo"])

    of_forget = jax.grad(lambda p: 0.7 * parts(p)["npo"])

    def expected(params):
        retain = jax.grad(lambda p: 0.3 * parts(p)["sft"])(params)
        smooth = {
            "sam": lambda: smoothing.sam_gradient(of_forget, params, rho=0.05),
            "gradient_penalty": lambda: smoothing.gradient_penalty_gradient(of_forget, params, rho=0.05),
            "curvature_penalty": lambda: smoothing.curvature_penalty_gradient(of_forget, params, rho=0.05, mu=0.1),
            "randomized_smoothing": lambda: smoothing.randomized_smoothing_gradient(
                of_forget, params, smoothing.gaussian_noises(jax.random.key(0), params, sigma=0.01, draws=2)
            ),
        }[kind]()
        return jax.tree.map(jnp.add, smooth, retain), jax.tree.map(jnp.add, of_forget(params), retain)

    wanted, plain = jax.jit(expected)(params)
    close(got, wanted, rtol=1e-3, atol=1e-5)
    assert optax.global_norm(plus(got, -1.0, plain)) > 1e-5


def test_an_objective_that_forgets_nothing_cannot_be_smoothed():
    terms = objective.bind({"sft": {"side": "retain"}}, alignment.losses, "objective", SIDES, ())
    with pytest.raises(ValueError, match="none does"):
        smoothing.make_gradient(None, terms, "sam", SETTINGS)
    with pytest.raises(ValueError, match=r"config\.training\.gradient"):
        smoothing.make_gradient(None, terms, "smooth", SETTINGS)
