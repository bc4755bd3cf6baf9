"""Nash-MD's policy gradient, in expectation over everything that a policy can write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import policy_gradients as pg

Y, TAU = 5, 0.3


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def normalised(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def drawn(seed=0):
    """Logits, the reference, the opponent and P on Y completions."""
    rng = np.random.default_rng(seed)
    gaps = rng.normal(size=(Y, Y))
    return rng.normal(size=Y), normalised(rng.normal(size=Y)), normalised(rng.normal(size=Y)), gaps - gaps.T


def test_the_expected_gradient_is_that_of_the_win_rate_less_the_kl():
    logits, reference, opponent, gaps = drawn()
    wins = 1 / (1 + np.exp(-gaps)) @ np.exp(opponent)

    def surrogate(x):
        weights = np.exp(normalised(logits))  # of the samples: no gradient
        return jnp.sum(weights * pg.nash_md_pg(jax.nn.log_softmax(x), jnp.asarray(reference), wins, tau=TAU))

    def objective(x):
        logps = jax.nn.log_softmax(x)
        return -jnp.sum(jnp.exp(logps) * (wins - TAU * (logps - reference)))

    found = jax.grad(surrogate)(jnp.asarray(logits))
    np.testing.assert_allclose(found, jax.grad(objective)(jnp.asarray(logits)), atol=1e-12)
    assert np.abs(found).max() > 1e-2


def test_a_half_is_a_control_variate_and_no_more():
    """Raising every win rate by a constant leaves the expected gradient as it was."""
    logits, reference, _, gaps = drawn()
    weights = np.exp(normalised(logits))

    def gradient(wins):
        def of(x):
            return jnp.sum(weights * pg.nash_md_pg(jax.nn.log_softmax(x), jnp.asarray(reference), wins, tau=TAU))

        return jax.grad(of)(jnp.asarray(logits))

    np.testing.assert_allclose(gradient(gaps[0]), gradient(gaps[0] + 0.7), atol=1e-12)


def test_even_wins_at_the_reference_teach_nothing():
    logps = -np.arange(1.0, 4.0)
    gradient = jax.grad(lambda x: pg.nash_md_pg(x, logps, np.full(3, 0.5), tau=TAU).sum())(jnp.asarray(logps))
    np.testing.assert_array_equal(gradient, 0.0)


def test_completions_of_one_token_have_the_same_value_both_ways():
    policy, reference = np.random.default_rng(0).normal(size=(2, 6))
    wins, mask = np.random.default_rng(1).random(6), np.ones((6, 1), bool)
    tokens = pg.nash_md_pg_tokens(policy[:, None], reference[:, None], wins, mask, tau=TAU)
    np.testing.assert_allclose(tokens[:, 0], pg.nash_md_pg(policy, reference, wins, tau=TAU))


def diagonal(policy, reference, wins, mask, *, tau):
    """What TRL's Nash-MD trainer minimises (before it was taken out): each token with its own log-ratio only."""
    ratios = jax.lax.stop_gradient(policy - reference)
    return jnp.where(mask, tau * ratios * policy - (wins[:, None] - 0.5) * policy, 0.0)


def on_a_chain(seed=0):
    """Gradients of the three forms in the logits of a two-token chain, in expectation over its nine completions."""
    rng = np.random.default_rng(seed)
    logits = {"first": rng.normal(size=3), "second": rng.normal(size=(3, 3))}
    reference = {"first": normalised(rng.normal(size=3)), "second": normalised(rng.normal(size=(3, 3)))}
    wins, mask = rng.random(9), np.ones((9, 2), bool)

    def token_logps(table):
        first, second = (jnp.asarray(table[k]) for k in ("first", "second"))
        return jnp.stack([jnp.repeat(first, 3), second.reshape(-1)], -1)

    def of(kernel):
        def expected(x):
            policy = token_logps(jax.tree.map(jax.nn.log_softmax, x))
            weights = np.exp(token_logps(jax.tree.map(normalised, logits)).sum(-1))
            return jnp.sum(weights * kernel(policy, token_logps(reference)))

        gradient = jax.grad(expected)(jax.tree.map(jnp.asarray, logits))
        return np.concatenate([gradient["first"], gradient["second"].reshape(-1)])

    sequences = of(lambda p, r: pg.nash_md_pg(p.sum(-1), r.sum(-1), wins, tau=TAU))
    tokens = of(lambda p, r: pg.nash_md_pg_tokens(p, r, wins, mask, tau=TAU).sum(-1))
    trls = of(lambda p, r: diagonal(p, r, wins, mask, tau=TAU).sum(-1))
    return sequences, tokens, trls


def test_sequences_and_tokens_have_one_expected_gradient_and_trls_product_another():
    sequences, tokens, trls = on_a_chain()
    np.testing.assert_allclose(tokens, sequences, atol=1e-12)
    assert np.abs(trls - sequences).max() > 1e-2
    # It leaves out what the first token does to the KL of the second: that of the second is right.
    np.testing.assert_allclose(trls[3:], sequences[3:], atol=1e-12)


def test_of_one_token_trls_product_is_the_same():
    policy, reference = np.random.default_rng(0).normal(size=(2, 6, 1))
    wins, mask = np.random.default_rng(1).random(6), np.ones((6, 1), bool)
    ours = pg.nash_md_pg_tokens(policy, reference, wins, mask, tau=TAU)
    np.testing.assert_allclose(diagonal(jnp.asarray(policy), reference, wins, mask, tau=TAU), ours)
