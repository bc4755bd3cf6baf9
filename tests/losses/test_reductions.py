"""Sums and weights: what each mean is, that masks hold, and that pieces add up to the whole."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import masking, reductions

TOKEN = {
    "token_mean": reductions.token_mean,
    "sequence_mean": reductions.sequence_mean,
    "sequence_sum": reductions.sequence_sum,
    "constant": reductions.constant(7.0),
}
ALL = {**TOKEN, "example_mean": reductions.example_mean}
few = hypothesis.settings(deadline=None, max_examples=15)
masks = hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 5)))


def naive(name, values, mask):
    """The mean by explicit loops over rows and tokens; None if nothing counts."""
    rows = [[v for v, m in zip(vs, ms, strict=True) if m] for vs, ms in zip(values, mask, strict=True)]
    rows = [row for row in rows if row]
    if not rows:
        return None
    if name == "sequence_mean":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    weights = {"token_mean": sum(map(len, rows)), "sequence_sum": len(rows), "constant": 7.0 * len(rows)}
    return sum(map(sum, rows)) / weights[name]


@pytest.mark.parametrize("name", TOKEN)
@few
@hypothesis.given(mask=masks, seed=st.integers(0, 2**16))
def test_token_reductions_equal_explicit_loops_whatever_the_mask(name, mask, seed):
    values = np.random.default_rng(seed).normal(size=mask.shape)
    total, weight = TOKEN[name](jnp.asarray(values, jnp.float32), jnp.asarray(mask))
    expected = naive(name, values, mask)
    if expected is None:
        assert total == 0 and weight == 0
    else:
        np.testing.assert_allclose(total / weight, expected, rtol=1e-4, atol=1e-6)


def test_example_mean_leaves_out_the_padding_rows():
    total, weight = reductions.example_mean(jnp.array([1.0, 5.0, 3.0]), jnp.array([True, False, True]))
    assert (total, weight) == (4.0, 2.0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nothing_behind_the_mask_reaches_sum_or_gradient(name, poison):
    mask = jnp.array([[True, False, True], [False, False, False], [True, True, True]])
    clean = jnp.where(mask, jnp.arange(9.0).reshape(3, 3), 0.0)
    dirty = jnp.where(mask, clean, poison)
    run = jax.value_and_grad(ALL[name].total)
    for got, expected in zip(run(dirty, mask), run(clean, mask), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ALL)
def test_gradient_with_all_masked_is_zero_and_finite(name):
    mask = jnp.zeros((2, 3), bool)
    np.testing.assert_array_equal(jax.grad(ALL[name].total)(jnp.full((2, 3), jnp.nan), mask), np.zeros((2, 3)))


@pytest.mark.parametrize("name", ALL)
def test_sums_and_weights_of_the_pieces_add_up(name):
    rng = np.random.default_rng(0)
    values, mask = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32), jnp.asarray(rng.random((6, 4)) < 0.5)
    mask = mask.at[2:4].set(False)  # one piece has nothing at all
    whole = ALL[name](values, mask)
    pieces = [ALL[name](values[i : i + 2], mask[i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_allclose(np.sum(pieces, axis=0), whole, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_weight_is_known_before_any_value(name):
    mask = jnp.array([[True, False], [False, False]])
    assert ALL[name].weight(mask) == ALL[name](jnp.full(mask.shape, 3.0), mask)[1]


def test_weight_counts_exactly_past_two_to_the_24():
    size = 2**24 + 4
    assert int(reductions.token_mean.weight(jnp.ones((size,), bool))) == size


def test_constant_one_is_the_mean_over_rows_of_sums():
    values, mask = jnp.array([[1.0, 2.0], [4.0, 9.0]]), jnp.array([[True, True], [True, False]])
    total, weight = reductions.constant(1)(values, mask)
    assert total / weight == 3.5


def test_a_half_precision_sum_is_taken_in_float32():
    total, _ = reductions.token_mean(jnp.full((1, 4096), 1.0, jnp.bfloat16), jnp.ones((1, 4096), bool))
    assert total.dtype == jnp.float32 and total == 4096


@pytest.mark.parametrize("name", ALL)
def test_a_float_mask_or_a_broadcast_mask_is_rejected(name):
    with pytest.raises(AssertionError):
        ALL[name].total(jnp.ones((2, 3)), jnp.ones((2, 3)))
    with pytest.raises(AssertionError):
        ALL[name].weight(jnp.ones((2, 3)))
    with pytest.raises(AssertionError):
        ALL[name].total(jnp.ones((2, 3)), jnp.ones((2, 1), bool))


def per_token_weights(reduction, mask):
    """What each token's value is multiplied by."""
    return jax.grad(lambda x: reduction.total(x, mask) / reduction.weight(mask))(jnp.zeros(mask.shape))


def test_with_equal_lengths_all_token_reductions_are_proportional_and_the_means_equal():
    mask = jnp.ones((3, 7), bool)  # 7 is also the length of the constant
    weights = {name: per_token_weights(reduction, mask) for name, reduction in TOKEN.items()}
    for name in ("token_mean", "sequence_mean", "constant"):
        np.testing.assert_allclose(weights[name], 1 / 21, rtol=1e-6)
    np.testing.assert_allclose(weights["sequence_sum"], 1 / 3, rtol=1e-6)


@few
@hypothesis.given(mask=masks)
def test_weights_of_the_two_means_sum_to_one_over_the_tokens(mask):
    hypothesis.assume(mask.any())
    for name in ("token_mean", "sequence_mean"):
        weights = per_token_weights(TOKEN[name], jnp.asarray(mask))
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
        assert (weights[~mask] == 0).all() and (weights[mask] > 0).all()


@pytest.mark.parametrize("name", TOKEN)
def test_columns_without_a_token_change_nothing(name):
    mask = jnp.array([[True, False, True], [True, True, True]])
    wider = jnp.pad(mask, ((0, 0), (0, 4)))
    np.testing.assert_array_equal(per_token_weights(TOKEN[name], wider)[:, :3], per_token_weights(TOKEN[name], mask))


def test_a_token_of_a_response_twice_as_long_has_half_the_weight_in_sequence_mean_alone():
    mask = jnp.array([[True, True, False, False], [True] * 4])
    for name, ratio in {"sequence_mean": 0.5, "token_mean": 1.0, "sequence_sum": 1.0, "constant": 1.0}.items():
        weights = per_token_weights(TOKEN[name], mask)
        np.testing.assert_allclose(weights[1, 0] / weights[0, 0], ratio, rtol=1e-6)


def test_sequence_sum_is_constant_one():
    values, mask = jnp.array([[1.0, 2.0], [4.0, 9.0]]), jnp.array([[True, True], [True, False]])
    assert reductions.sequence_sum(values, mask) == reductions.constant(1)(values, mask) == (7.0, 2.0)


@pytest.mark.parametrize("length", [0.0, -1.0])
def test_length_out_of_range_states_the_range(length):
    with pytest.raises(ValueError, match=r"length must lie in \(0, inf\)"):
        reductions.constant(length)


def test_masked_sum_of_a_singular_function_is_safe_when_its_input_is_kept_first():
    """The way to use `keep`: before the function that is singular behind the mask, not after."""
    x, mask = jnp.array([2.0, 0.0]), jnp.array([True, False])
    before = jax.grad(lambda x: jnp.sum(masking.keep(jnp.log(masking.keep(x, mask, 1.0)), mask)))(x)
    after = jax.grad(lambda x: masking.masked_sum(jnp.log(x), mask))(x)
    np.testing.assert_array_equal(before, [0.5, 0.0])
    assert np.isnan(after[1])
