"""WPO's weight against its identities in the catalogue."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from alignment.losses import dpo, wpo, wpo_weight

B, T, V, BETA = 6, 4, 11, 0.3


def policy(seed, scale=1.0, batch=B, time=T):
    """Log-probs [.., V] of random next-token distributions of both sides, masks and a generator."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(2, batch, time, V))
    masks = rng.random((2, batch, time)) < 0.7
    masks[..., 0] = True
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)), jnp.asarray(masks), rng


def weight(logps, tokens, masks):
    picked = jnp.take_along_axis(logps, tokens[..., None], -1)[..., 0]
    collisions = jnp.sum(jnp.exp(2 * logps), -1)
    return wpo_weight(*picked, *collisions, *masks)


def test_weight_under_uniform_distributions_is_one():
    logps, masks, rng = policy(0, scale=0.0)
    tokens = jnp.asarray(rng.integers(0, V, (2, B, T)))
    np.testing.assert_allclose(weight(logps, tokens, masks), 1.0, rtol=1e-5)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_weight_is_a_probability_and_is_the_formula_written_out(seed, scale):
    logps, masks, rng = policy(seed, scale)
    tokens = rng.integers(0, V, (2, B, T))
    got = weight(logps, jnp.asarray(tokens), masks)
    assert (got <= 1).all() and (got >= 0).all()
    p = np.exp(np.asarray(logps, np.float64))
    expected = np.ones(B)
    for b in range(B):
        for s in range(2):
            places = np.flatnonzero(masks[s, b])
            ratios = [p[s, b, t, tokens[s, b, t]] / (p[s, b, t] ** 2).sum() for t in places]
            expected[b] *= np.prod(ratios) ** (1 / len(places))
    np.testing.assert_allclose(got, np.minimum(1, expected), rtol=1e-4, atol=1e-7)


def test_mean_weight_of_samples_from_the_policy_is_near_one_and_of_its_unlikely_tokens_is_not():
    """One token a side: E[p(y) / sum p^2] = 1 exactly, before the cut at 1."""
    logps, _, _ = policy(1, batch=20_000, time=1)
    masks = jnp.ones((2, 20_000, 1), bool)
    tokens = jax.random.categorical(jax.random.key(0), logps)
    drawn = jnp.exp(jnp.take_along_axis(logps, tokens[..., None], -1)[..., 0]) / jnp.sum(jnp.exp(2 * logps), -1)
    np.testing.assert_allclose(drawn.mean(), 1.0, atol=0.02)
    on_policy, off_policy = weight(logps, tokens, masks).mean(), weight(logps, logps.argmin(-1), masks).mean()
    assert off_policy < 0.1 < 0.5 < on_policy


def test_wpo_is_the_weight_times_dpo_and_no_gradient_passes_through_the_weight():
    logps, masks, rng = policy(2)
    tokens = jnp.asarray(rng.integers(0, V, (2, B, T)))
    reference = jnp.asarray(rng.normal(size=(2, B)), jnp.float32)

    def loss(logps):
        picked = jnp.take_along_axis(logps, tokens[..., None], -1)[..., 0]
        collisions = jnp.sum(jnp.exp(2 * logps), -1)
        sums = jnp.sum(picked * masks, -1)
        return wpo(*sums, *reference, *picked, *collisions, *masks, beta=BETA), sums

    w = weight(logps, tokens, masks)
    values, sums = loss(logps)
    np.testing.assert_allclose(values, w * dpo(*sums, *reference, beta=BETA), rtol=1e-5)
    assert np.ptp(w) > 0.1

    def fixed(logps):
        sums = jnp.sum(jnp.take_along_axis(logps, tokens[..., None], -1)[..., 0] * masks, -1)
        return jnp.sum(w * dpo(*sums, *reference, beta=BETA))

    got = jax.grad(lambda x: jnp.sum(loss(x)[0]))(logps)
    np.testing.assert_allclose(got, jax.grad(fixed)(logps), rtol=1e-5, atol=1e-7)


def test_wpo_of_uniform_distributions_is_dpo():
    """An empty completion weighs nothing into the mean either."""
    logps, masks, _ = policy(3, scale=0.0)
    masks = masks.at[0, 0].set(False)
    picked, collisions = logps[..., 0], jnp.sum(jnp.exp(2 * logps), -1)
    pair = jnp.asarray(np.random.default_rng(0).normal(size=(4, B)), jnp.float32)
    np.testing.assert_allclose(wpo(*pair, *picked, *collisions, *masks, beta=BETA), dpo(*pair, beta=BETA), rtol=1e-5)
