"""Any margin with any link, and a weight: the composed function is a kernel like those written by hand."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_examples import LENGTHS, PAIR, B, gradients

from alignment import losses, statistics
from alignment.losses import links, margins
from alignment.losses.composition import compose

NAMED = dict(zip(("policy_chosen_logps", "policy_rejected_logps"), PAIR[:2], strict=True))
NAMED |= dict(zip(("reference_chosen_logps", "reference_rejected_logps"), PAIR[2:], strict=True))
NAMED |= dict(zip(("chosen_lengths", "rejected_lengths"), LENGTHS, strict=True))
each_margin = pytest.mark.parametrize("margin", margins.__all__)


def likelihood_per_token(policy_chosen_logps, chosen_lengths, *, sharpness: float = 1.0):
    """A weighting of the tests: pairs whose chosen completion the policy finds likely, per token, count more."""
    return jnp.exp(sharpness * policy_chosen_logps / chosen_lengths)


def call(kernel, **hyper):
    return kernel(*(NAMED[name] for name in statistics.arguments_of(kernel)), **hyper)


# -------------------------------------------------------------------------------------------------------- margins


@each_margin
def test_every_margin_is_documented_and_takes_the_vocabulary_then_hyperparameters_with_defaults(margin):
    function = getattr(margins, margin)
    assert "Shapes" in function.__doc__ and "arXiv" in function.__doc__
    for name in statistics.arguments_of(function):
        statistics.parse(name)
    hyper = statistics.hyperparameters_of(function)
    assert hyper and all(isinstance(default, float) for default in hyper.values())


@each_margin
def test_every_hyperparameter_of_a_margin_has_a_range(margin):
    function = getattr(margins, margin)
    for name in statistics.hyperparameters_of(function):
        for bad in (-1.0, float("nan")):
            with pytest.raises(ValueError, match=f"^{name} must lie in "):
                call(function, **{name: bad})


@each_margin
def test_reference_and_lengths_get_no_gradient_and_both_policy_sides_do(margin):
    function = getattr(margins, margin)
    names = statistics.arguments_of(function)
    for position, name in enumerate(names):
        if "lengths" in name:
            continue
        (slope,) = gradients(function, *(NAMED[n] for n in names), argnums=(position,))
        assert (np.asarray(slope) == 0).all() if name.startswith("reference") else (np.abs(slope) > 0).all(), name


@each_margin
def test_no_margin_shares_a_hyperparameter_with_a_link(margin):
    mine = set(statistics.hyperparameters_of(getattr(margins, margin)))
    for link in links.__all__:
        assert not mine & set(list(inspect.signature(getattr(links, link)).parameters)[1:]), link


@each_margin
def test_a_wrong_shape_or_type_is_rejected(margin):
    function = getattr(margins, margin)
    for name in statistics.arguments_of(function):
        flipped = NAMED[name].astype(jnp.float32 if "lengths" in name else jnp.int32)
        for wrong in (NAMED[name][:1], NAMED[name][:, None], flipped):
            with pytest.raises(AssertionError):
                function(*({**NAMED, name: wrong}[n] for n in statistics.arguments_of(function)))


def test_margins_meet_in_the_log_ratio():
    expected = call(margins.log_ratio, beta=0.3)
    relatives = {
        "length_regularized": {"beta": 0.3, "length_penalty": 0.0},
        "scaled_reference": {"beta": 0.3, "reference_scale": 1.0},
        "two_temperatures": {"beta_chosen": 0.3, "beta_rejected": 0.3},
        "positive": {"beta": 0.3, "penalty": 0.0},
        "alpha_divergence": {"beta": 0.3, "alpha": 0.0},
    }
    for name, hyper in relatives.items():
        np.testing.assert_allclose(call(getattr(margins, name), **hyper), expected, rtol=1e-4, atol=1e-5, err_msg=name)


# -------------------------------------------------------------------------------------------------------- compose

BY_HAND = {
    "dpo": ("log_ratio", "logistic", {"beta": 0.3}, {"beta": 0.3}),
    "cdpo": ("log_ratio", "logistic", {"beta": 0.3, "label_smoothing": 0.2}, {"beta": 0.3, "label_smoothing": 0.2}),
    "ipo": ("log_ratio", "squared", {"beta": 1.0, "target": 2.5}, {"tau": 0.2}),
    "ipo_length_normalized": ("length_normalized_log_ratio", "squared", {"beta": 1.0, "target": 2.5}, {"tau": 0.2}),
    "focal_po": ("log_ratio", "focal", {"beta": 0.3, "gamma": 0.5}, {"beta": 0.3, "gamma": 0.5}),
    "robust_dpo": ("log_ratio", "robust", {"beta": 0.3, "flip_rate": 0.2}, {"beta": 0.3, "flip_rate": 0.2}),
    "rso_hinge_norm": ("log_ratio", "hinge", {"beta": 0.3}, {"gamma": 0.3}),
    "rso_hinge": ("reference_free", "hinge", {"beta": 0.3}, {"gamma": 0.3}),
    "discopop": ("log_ratio", "discopop", {"beta": 0.3}, {"beta": 0.3}),
    "exo_pair": ("log_ratio", "reverse_kl", {"beta": 0.3}, {"beta": 0.3}),
    "dpo_gamma": ("scaled_reference", "logistic", {"reference_scale": 0.5}, {"gamma": 0.5}),
    "flex_dpo": ("two_temperatures", "logistic", {}, {}),
    "dpop": ("positive", "logistic", {"penalty": 2.0}, {"lambda_": 2.0}),
    "length_normalized_dpo": ("length_normalized_log_ratio", "logistic", {}, {}),
    "length_regularized_dpo": ("length_regularized", "logistic", {"length_penalty": 0.2}, {"alpha": 0.2}),
    "f_dpo": ("alpha_divergence", "logistic", {"alpha": 0.3}, {"alpha": 0.3}),
    "f_dpo_jensen_shannon": ("jensen_shannon", "logistic", {}, {}),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_composed_kernels_are_those_written_by_hand(name):
    margin, link, hyper, its = BY_HAND[name]
    kernel = compose(getattr(margins, margin), getattr(links, link))
    by_hand = getattr(losses, name)
    assert statistics.arguments_of(kernel) == statistics.arguments_of(by_hand)
    np.testing.assert_allclose(call(kernel, **hyper), call(by_hand, **its), rtol=1e-6)


def test_signature_names_the_arrays_once_and_the_hyperparameters_of_all_parts():
    kernel = compose(margins.log_ratio, links.focal, likelihood_per_token)
    assert statistics.arguments_of(kernel) == (*list(NAMED)[:4], "chosen_lengths")
    assert statistics.hyperparameters_of(kernel) == {"beta": 0.1, "gamma": 0.05, "sharpness": 1.0}
    assert kernel.__name__ == "log_ratio_focal_likelihood_per_token"
    assert kernel.__doc__.startswith("stop_gradient(likelihood_per_token) * focal(log_ratio)")


def test_weights_multiply_the_values_and_are_held_fixed():
    plain = compose(margins.log_ratio, links.logistic)
    weighted = compose(margins.log_ratio, links.logistic, likelihood_per_token)
    weights = call(likelihood_per_token, sharpness=0.1)
    np.testing.assert_allclose(call(weighted, sharpness=0.1), weights * call(plain), rtol=1e-6)
    (expected,) = gradients(plain, *PAIR, argnums=(0,))
    (got,) = gradients(lambda *a: weighted(*a, LENGTHS[0], sharpness=0.1), *PAIR, argnums=(0,))
    np.testing.assert_allclose(got, weights * expected, rtol=1e-5)


def test_arguments_by_name_and_transformations():
    kernel = compose(margins.length_normalized_log_ratio, links.hinge)
    expected = call(kernel, beta=2.0)
    np.testing.assert_array_equal(kernel(**NAMED, beta=2.0), expected)
    np.testing.assert_allclose(jax.jit(kernel)(**NAMED, beta=2.0), expected, rtol=1e-6)
    betas = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(jax.vmap(lambda b: call(kernel, beta=b))(betas)[1], expected, rtol=1e-6)


def test_a_wrong_call_is_an_error():
    kernel = compose(margins.log_ratio, links.logistic)
    with pytest.raises(TypeError, match="gamma"):
        call(kernel, gamma=1.0)
    with pytest.raises(TypeError, match="reference_rejected_logps"):
        kernel(*PAIR[:3])
    with pytest.raises(ValueError, match=r"beta must lie in \(0, inf\)"):
        call(kernel, beta=0.0)


def test_one_name_for_two_hyperparameters_is_an_error():
    def weighting(policy_chosen_logps, *, beta: float = 1.0):
        return policy_chosen_logps * beta

    with pytest.raises(ValueError, match=r"'beta' belongs to the margin 'log_ratio' and to the weighting 'weighting'"):
        compose(margins.log_ratio, links.logistic, weighting)


def test_weights_of_another_shape_are_an_error():
    def weighting(policy_chosen_logps):
        return policy_chosen_logps[:1]

    with pytest.raises(AssertionError, match="weights"):
        call(compose(margins.log_ratio, links.logistic, weighting))


def test_a_weighting_over_the_batch_brings_valid_and_the_axis():
    def weighting(policy_chosen_logps, valid, *, axis_name=None):
        total = jnp.sum(jnp.where(valid, policy_chosen_logps, 0.0))
        return policy_chosen_logps / (total if axis_name is None else jax.lax.psum(total, axis_name))

    kernel = compose(margins.log_ratio, links.logistic, weighting)
    assert statistics.arguments_of(kernel)[-1] == "valid" and "axis_name" in statistics.hyperparameters_of(kernel)
    whole = kernel(*PAIR, jnp.ones(B, bool))
    rows = jax.vmap(lambda *a: kernel(*a, axis_name="rows"), axis_name="rows")(*PAIR, jnp.ones(B, bool))
    np.testing.assert_allclose(rows, whole, rtol=1e-5)
