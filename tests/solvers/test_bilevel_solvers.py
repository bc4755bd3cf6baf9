"""Bilevel solvers on problems whose solutions are known in closed form.

The quadratic: F(x, y) = |y - t|^2 / 2 + |x|^2 / 4, g(x, y) = (y - Mx)' A (y - Mx) / 2, so y*(x) = Mx and
F(x, y*(x)) = |Mx - t|^2 / 2 + |x|^2 / 4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import solvers

M = jnp.array([[1.0, -0.5], [0.25, 0.75]])
A = jnp.array([[2.0, 0.5], [0.5, 1.0]])
TARGET = jnp.array([1.0, -2.0])
X = jnp.array([0.3, 0.8])
BEST = jnp.linalg.solve(M.T @ M + 0.5 * jnp.eye(2), M.T @ TARGET)


def upper(x, y):
    return jnp.sum((y - TARGET) ** 2) / 2 + jnp.sum(x**2) / 4


def lower(x, y):
    return (y - M @ x) @ A @ (y - M @ x) / 2


def hypergradient(x):
    return jax.grad(lambda x: upper(x, M @ x))(x)


def penalised(x, sigma):
    """The minimiser of sigma F + g in y."""
    return jnp.linalg.solve(sigma * jnp.eye(2) + A, sigma * TARGET + A @ M @ x)


def penalty_gradient(x, sigma):
    return jax.grad(lambda x: solvers.penalty_objective(upper, lower, x, penalised(x, sigma), M @ x, sigma=sigma))(x)


def test_the_gradient_of_the_penalty_is_the_hypergradient_up_to_a_multiple_of_sigma():
    errors = [float(jnp.linalg.norm(penalty_gradient(X, sigma) - hypergradient(X))) for sigma in (0.2, 0.02)]
    assert errors[0] > 1e-2
    assert 0.08 < errors[1] / errors[0] < 0.13  # a tenth of sigma, a tenth of the error


def test_held_minimisers_give_the_derivative_of_the_penalty_with_minimisers_that_follow():
    def psi(x, sigma=0.3):
        y = penalised(x, sigma)
        return upper(x, y) + (lower(x, y) - lower(x, M @ x)) / sigma

    np.testing.assert_allclose(penalty_gradient(X, 0.3), jax.grad(psi)(X), rtol=1e-4)


def test_without_an_upper_function_the_penalty_is_zero():
    y = M @ X
    assert solvers.penalty_objective(lambda x, y: jnp.zeros(()), lower, X, y, y, sigma=0.1) == 0.0


def test_the_penalty_method_finds_the_minimiser_of_its_penalty_and_keeps_to_its_set():
    sigma = 0.05
    solve = functools.partial(
        solvers.penalty_bilevel, upper, lower, sigma=sigma, inner_steps=40, inner_rate=0.4, rate=0.3
    )
    run = jax.jit(functools.partial(solve, steps=150))(X, jnp.zeros(2))
    assert jnp.linalg.norm(penalty_gradient(run.x, sigma)) < 2e-3
    np.testing.assert_allclose(run.x, BEST, atol=0.05)
    np.testing.assert_allclose(run.lower, M @ run.x, atol=1e-3)
    boxed = jax.jit(functools.partial(solve, steps=3, project=lambda x: jnp.clip(x, -0.5, 0.5)))(X, jnp.zeros(2))
    assert (jnp.abs(boxed.path) <= 0.5).all()


def test_bo_rep_moves_by_steps_of_one_length_towards_the_minimiser():
    run = jax.jit(functools.partial(solvers.bo_rep, upper, lower, steps=400, eta=0.01, nu=0.3, lower_rate=0.4))(
        X, jnp.zeros(2)
    )
    lengths = jnp.linalg.norm(jnp.diff(run.path, axis=0), axis=1)
    np.testing.assert_allclose(lengths, 0.01, rtol=1e-3)
    np.testing.assert_allclose(run.x, BEST, atol=0.1)  # it circles there, for no step is shorter


def test_with_unit_curvature_and_unit_step_the_adjoint_is_the_upper_gradient_and_the_estimate_exact():
    def unit(x, y):
        return jnp.sum((y - M @ x) ** 2) / 2

    run = jax.jit(
        functools.partial(solvers.bo_rep, upper, unit, steps=1, nu=1.0, beta=0.0, lower_rate=1.0, lower_steps=1)
    )(X, jnp.zeros(2))
    np.testing.assert_allclose(run.adjoint, M @ X - TARGET, rtol=1e-5)
    np.testing.assert_allclose(run.momentum, hypergradient(X), rtol=1e-5)


def test_bo_rep_leaves_the_lower_variable_between_its_turns_and_stays_without_a_gradient():
    still = jax.jit(functools.partial(solvers.bo_rep, lambda x, y: jnp.sum(y) * 0.0, lower, steps=2))(X, jnp.zeros(2))
    np.testing.assert_array_equal(still.x, X)
    one, two = (
        jax.jit(functools.partial(solvers.bo_rep, upper, lower, steps=n, period=2, refinement_steps=1))(X, jnp.zeros(2))
        for n in (1, 2)
    )
    np.testing.assert_array_equal(one.y, two.y)


# F = ((x - 2)^2 + (y - 2)^2) / 2 where y minimises (y - x)^2 / 2 over y <= 1: y*(x) = min(x, 1), best at (2, 1), and
# there the lower problem's multiplier is x - y = 1.
def coupled():
    return (
        lambda x, y: jnp.sum((x - 2) ** 2 + (y - 2) ** 2) / 2,
        lambda x, y: jnp.sum((y - x) ** 2) / 2,
        lambda x, y: y - 1,
    )


def test_lv_hba_finds_the_solution_and_the_multiplier_of_a_lower_constraint():
    solve = functools.partial(
        solvers.lv_hba, *coupled(), steps=8000, alpha=0.2, beta=0.5, eta=0.2, gamma_1=1.0, gamma_2=1.0, penalty=2.0,
        project=lambda x, y: (x, jnp.minimum(y, 1.0)),
    )  # fmt: skip
    end = jax.jit(solve)(jnp.zeros(1), jnp.zeros(1))
    np.testing.assert_allclose([end.x[0], end.y[0], end.theta[0]], [2.0, 1.0, 1.0], atol=0.02)
    np.testing.assert_allclose(end.multipliers, end.proximal, atol=0.02)
    np.testing.assert_allclose(end.multipliers, 1.0, atol=0.03)


def test_the_directions_of_lv_hba_are_the_gradient_of_its_value_function():
    """Of x^2 y / 2 + y^2 and y - x at a point where the constraint binds: the saddle point is linear in x, y and z."""
    functions = (lambda x, y: jnp.sum(x * y), lambda x, y: jnp.sum(y * y + x * y), lambda x, y: y - x)
    gammas, c = {"gamma_1": 2.0, "gamma_2": 0.5}, 3.0
    x, y, z = jnp.array([-1.0]), jnp.array([0.5]), jnp.array([2.0])

    def saddle(x, y, z):
        # 2 theta + x + lambda + (theta - y) / 2 = 0 and theta - x - (lambda - z) / 0.5 = 0
        rows = jnp.array([[2.5, 1.0], [1.0, -2.0]])
        theta, multiplier = jnp.linalg.solve(rows, jnp.stack([y[0] / 2 - x[0], x[0] - 2 * z[0]]))
        return theta[None], multiplier[None]

    def objective(x, y, z):
        theta, multiplier = saddle(x, y, z)
        value = functions[1](x, theta) + jnp.sum(multiplier * functions[2](x, theta))
        value += jnp.sum((theta - y) ** 2) / 4 - jnp.sum((multiplier - z) ** 2)
        return functions[0](x, y) / c + functions[1](x, y) - value

    state = solvers.LvHbaState(x, y, *saddle(x, y, z), z)
    assert state.multipliers[0] > 0
    got = solvers.lv_hba_directions(*functions, state, c, **gammas)
    for direction, expected in zip(got, jax.grad(objective, argnums=(0, 1, 2))(x, y, z), strict=True):
        np.testing.assert_allclose(direction, expected, rtol=1e-4)


def test_lv_hba_without_active_constraints_moves_x_by_the_upper_gradient_over_the_penalty():
    functions, x, y = coupled(), jnp.array([0.3]), jnp.array([-0.4])
    state = solvers.LvHbaState(x, y, y, jnp.zeros(1), jnp.zeros(1))
    np.testing.assert_allclose(solvers.lv_hba_directions(*functions, state, 4.0)[0], (x - 2) / 4, rtol=1e-6)


# Three sources of one linear regression: clean labels, shuffled labels, labels of the opposite sign.
def mixture():
    rng = np.random.default_rng(0)
    truth, inputs = rng.normal(size=4), rng.normal(size=(3, 40, 4))
    labels = inputs @ truth
    labels[1], labels[2] = rng.permutation(labels[1]), -labels[2]
    inputs, labels = jnp.asarray(inputs, jnp.float32), jnp.asarray(labels, jnp.float32)
    held_out = jnp.asarray(rng.normal(size=(30, 4)), jnp.float32)
    answers = held_out @ jnp.asarray(truth, jnp.float32)
    return (
        lambda w, batch: jnp.mean((inputs @ w - labels) ** 2, axis=1),
        lambda w, batch: jnp.mean((held_out @ w - answers) ** 2),
    )


def test_scalebio_gives_the_clean_source_all_weight_and_the_model_its_test_loss():
    sources, validation = mixture()
    run = jax.jit(
        lambda logits, w, batches: solvers.scalebio(
            sources, validation, logits, w, batches, weight_rate=1.0, model_rate=0.02, shadow_rate=0.02
        )
    )(jnp.zeros(3), jnp.zeros(4), jnp.arange(300))
    assert run.weights[-1, 0] > 0.97
    equal = jnp.linalg.lstsq(*_stacked(sources))[0]
    assert validation(run.params, None) < 0.05 * validation(equal, None)


def _stacked(sources):
    """The normal equations of equal weights: gradient and curvature of the mean of the source losses."""
    loss = lambda w: jnp.mean(sources(w, None))  # noqa: E731
    zero = jnp.zeros(4)
    return jax.hessian(loss)(zero), -jax.grad(loss)(zero)


def test_with_one_source_scalebio_is_training_on_it_and_on_the_validation_data():
    sources, validation = mixture()
    run = solvers.scalebio(
        lambda w, b: sources(w, b)[:1], validation, jnp.zeros(1), jnp.zeros(4), jnp.arange(2), alpha=2.0
    )
    w = jnp.zeros(4)
    for _ in range(2):
        w = w - 1e-2 * jax.grad(lambda w: validation(w, None) + 2.0 * sources(w, None)[0])(w)
    np.testing.assert_allclose(run.params, w, rtol=1e-5)
    np.testing.assert_array_equal(run.logits, 0.0)


def test_the_weight_gradient_sums_to_zero_vanishes_where_both_models_agree_and_is_that_of_the_penalty():
    logits, one, other = jnp.array([0.2, -1.0, 0.5]), jnp.array([1.0, 2.0, 0.5]), jnp.array([0.7, 2.5, 0.1])
    gradient = solvers.scalebio_weight_gradient(logits, one, other, alpha=4.0)
    np.testing.assert_allclose(gradient.sum(), 0.0, atol=1e-6)
    np.testing.assert_array_equal(solvers.scalebio_weight_gradient(logits, one, one), 0.0)
    losses = {"w": one, "u": other}
    penalty = jax.grad(
        lambda lam: solvers.penalty_objective(
            lambda lam, y: jnp.zeros(()), lambda lam, y: jnp.sum(jax.nn.softmax(lam) * losses[y[0]]),
            lam, _Label("w"), _Label("u"), sigma=0.25,
        )
    )(logits)  # fmt: skip
    np.testing.assert_allclose(gradient, penalty, rtol=1e-5)


@jax.tree_util.register_static
class _Label(str):
    """A name in place of parameters: a pytree without leaves."""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solvers.scalebio_weight_gradient(*[jnp.zeros(2)] * 3, alpha=0.0), r"alpha must lie in \(0, inf\)"),
        (lambda: solvers.penalty_bilevel(upper, lower, X, X, steps=0), r"steps must be an integer in \[1, inf\)"),
        (lambda: solvers.penalty_objective(upper, lower, X, X, X, sigma=-1.0), r"sigma must lie in \(0, inf\)"),
        (lambda: solvers.bo_rep(upper, lower, X, X, steps=1, beta=1.0), r"beta must lie in \[0, 1\)"),
        (lambda: solvers.lv_hba(*coupled(), X, X, steps=1, eta=0.0), r"eta must lie in \(0, inf\)"),
    ],
)
def test_what_is_out_of_range_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
