"""Attention by blocks against the plain formula: values, gradients, masks, several blocks, half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models.attention import BLOCK, attend, attend_cache, attend_row
from alignment.models.linear import matmul


def plain(q, k, v, mask, scale, softcap):
    """The formula, head by head, with K and V repeated and the weights normalised before the product."""
    repeats = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, repeats, axis=2), jnp.repeat(v, repeats, axis=2)
    scores = jnp.einsum("bqhd,bshd->bhqs", q, k) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1)
    return jnp.einsum("bhqs,bshd->bqhd", weights, v).reshape(*q.shape[:2], -1)


def drawn(columns, heads=4, groups=2, size=8, batch=2):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(batch, columns, heads, size), *[(batch, columns, groups, size)] * 2]
    q, k, v = (jax.random.normal(key, shape) for key, shape in zip(keys[:3], shapes, strict=True))
    index = jnp.arange(columns)
    segments = (index * 3 // columns)[None] + jnp.zeros((batch, 1), jnp.int32)  # three examples side by side
    mask = (segments[:, :, None] == segments[:, None, :]) & (index[None, :] <= index[:, None])
    return q, k, v, mask.at[:, 5].set(False)  # a padding query, which sees nothing


@pytest.mark.parametrize("columns", [16, BLOCK, 2 * BLOCK + 17])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_rows_of_any_length_attend_by_the_formula_and_so_do_their_gradients(columns, softcap):
    q, k, v, mask = drawn(columns)
    seen = mask.any(axis=-1)[..., None]  # what a query that sees nothing gives is nobody's business, if it is finite
    weights = jax.random.normal(jax.random.key(1), (2, columns, 32)) * seen
    results = []
    for function in (plain, lambda *a: attend_row(*a[:4], scale=a[4], softcap=a[5])):
        total = jax.jit(lambda q, k, v, f=function: (f(q, k, v, mask, 0.3, softcap) * weights).sum())
        out = jax.jit(lambda q, k, v, f=function: f(q, k, v, mask, 0.3, softcap))(q, k, v)
        assert np.isfinite(out).all()
        results.append((out * seen, *jax.grad(total, (0, 1, 2))(q, k, v)))
    for want, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


def test_a_row_that_sees_both_ways_is_not_cut_to_the_left():
    q, k, v, mask = drawn(2 * BLOCK)
    both = mask | mask.swapaxes(1, 2)
    got = attend_row(q, k, v, both, scale=0.3, causal=False)
    np.testing.assert_allclose(got, plain(q, k, v, both, 0.3, None), rtol=1e-4, atol=1e-5)


def test_a_few_queries_over_many_keys_attend_as_in_the_whole_row():
    q, k, v, mask = drawn(48)
    whole = attend(q, k, v, mask, scale=0.3)
    np.testing.assert_allclose(attend(q[:, 40:], k, v, mask[:, 40:], scale=0.3), whole[:, 40:], rtol=1e-5, atol=1e-6)


def test_keys_and_values_as_a_cache_keeps_them_give_the_same():
    q, k, v, mask = drawn(48)
    cached = attend_cache(q, k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), mask, scale=0.3, softcap=5.0)
    np.testing.assert_allclose(cached, attend(q, k, v, mask, scale=0.3, softcap=5.0), rtol=1e-5, atol=1e-6)


def test_scores_of_any_size_neither_overflow_nor_lose_the_gradient():
    q, k, v, mask = drawn(16)
    out, gradient = jax.value_and_grad(lambda q: attend_row(q, k, v, mask, scale=1e4).sum())(q)
    assert np.isfinite(out) and np.isfinite(gradient).all()


def test_half_precision_in_and_out_with_a_softmax_in_single():
    q, k, v, mask = drawn(2 * BLOCK)
    half = attend_row(*(x.astype(jnp.bfloat16) for x in (q, k, v)), mask, scale=0.3)
    assert half.dtype == jnp.bfloat16
    whole = attend_row(q, k, v, mask, scale=0.3)
    np.testing.assert_allclose(half.astype(jnp.float32), whole, atol=3e-2)


def test_nothing_of_the_size_of_the_scores_is_kept_for_the_backward_pass():
    q, k, v, mask = drawn(2 * BLOCK)
    _, pull = jax.vjp(lambda q, k, v: attend_row(q, k, v, mask, scale=0.3), q, k, v)
    floats = [x for x in jax.tree.leaves(pull) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert max(x.size for x in floats) <= q.size


@pytest.mark.parametrize(("narrow", "wide"), [(5, 9), (9, 5)])
def test_the_gradients_of_a_product_are_those_of_the_plain_one(narrow, wide):
    keys = jax.random.split(jax.random.key(2), 3)
    x, weight = jax.random.normal(keys[0], (2, 3, narrow)), jax.random.normal(keys[1], (narrow, wide))
    cotangent = jax.random.normal(keys[2], (2, 3, wide))
    for got, want in zip(*(jax.vjp(f, x, weight)[1](cotangent) for f in (matmul, jnp.matmul)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    per_row = jax.vmap(jax.grad(lambda w, x: (matmul(x, w) ** 2).sum()), (None, 0))(weight, x)
    np.testing.assert_allclose(per_row.sum(0), jax.grad(lambda w: ((x @ w) ** 2).sum())(weight), rtol=1e-5)
