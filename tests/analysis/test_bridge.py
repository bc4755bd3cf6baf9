"""SFT as implicit reward learning: what cancels, what does not, and logits as action values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import analysis, losses

CONJUGATES = (analysis.linear_conjugate, analysis.pearson_conjugate, analysis.squared_hellinger_conjugate)


def setting(seed=0, shape=(3, 6)):
    rng = np.random.default_rng(seed)
    policy, reference = (jax.nn.log_softmax(jnp.asarray(rng.normal(size=shape), jnp.float32)) for _ in range(2))
    return policy, reference, jnp.asarray(rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]), jnp.float32)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_linear_conjugate_is_the_likelihood_of_the_expert_against_the_reference(beta):
    policy, reference, expert = setting()
    got = analysis.bridge_objective(policy, reference, expert, beta=beta)
    np.testing.assert_allclose(got, beta * jnp.sum(expert * (policy - reference), -1), rtol=1e-4, atol=1e-6)


def test_linear_conjugate_has_beta_times_the_gradient_of_sft_whatever_the_reference():
    policy, reference, expert = setting()

    def objective(logits, ref):
        return jnp.sum(analysis.bridge_objective(jax.nn.log_softmax(logits), ref, expert, beta=0.3))

    def nll(logits):
        return jnp.sum(expert * losses.sft(jax.nn.log_softmax(logits), jnp.ones(logits.shape, bool)))

    expected = -0.3 * jax.grad(nll)(policy)
    for ref in (reference, jnp.flip(reference, -1)):
        np.testing.assert_allclose(jax.grad(objective)(policy, ref), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("conjugate", CONJUGATES, ids=lambda f: f.__name__)
def test_the_reference_itself_has_objective_zero(conjugate):
    _, reference, expert = setting()
    got = analysis.bridge_objective(reference, reference, expert, conjugate=conjugate)
    np.testing.assert_allclose(got, 0, atol=1e-7)


def test_pearson_takes_a_quarter_of_the_mean_squared_reward_off():
    policy, reference, expert = setting()
    linear, pearson = (analysis.bridge_objective(policy, reference, expert, conjugate=c) for c in CONJUGATES[:2])
    squared = jnp.sum(jnp.exp(policy) * (0.1 * (policy - reference)) ** 2, -1)
    np.testing.assert_allclose(pearson, linear - squared / 4, rtol=1e-4, atol=1e-7)
    assert np.all(squared > 0)


def test_hellinger_is_infinite_from_a_reward_of_one_on():
    got = analysis.squared_hellinger_conjugate(jnp.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(got, [-0.5, 0.0, 1.0, np.inf, np.inf])


@pytest.mark.parametrize("conjugate", CONJUGATES, ids=lambda f: f.__name__)
def test_conjugates_are_convex_and_above_the_linear_one(conjugate):
    t = jnp.linspace(-3, 0.9, 200)
    values = np.asarray(conjugate(t), np.float64)
    assert np.all(np.diff(values, 2) >= -1e-5) and np.all(values >= np.asarray(t) - 1e-6)


def test_only_the_linear_conjugate_lets_the_policy_go_all_the_way_to_the_expert():
    """SFT ends at the expert; Pearson and squared Hellinger resist, and stop nearer to the reference."""
    _, reference, expert = setting(1, (6,))

    def climb(conjugate):
        def step(logits, _):
            slope = jax.grad(
                lambda z: analysis.bridge_objective(
                    jax.nn.log_softmax(z), reference, expert, beta=1.0, conjugate=conjugate
                )
            )(logits)
            return logits + 0.1 * slope, None

        return jax.nn.log_softmax(jax.lax.scan(step, reference, None, length=4000)[0])

    ends = [climb(c) for c in CONJUGATES]
    away = [float(jnp.sum(jnp.exp(p) * (p - reference))) for p in ends]
    np.testing.assert_allclose(jnp.exp(ends[0]), expert, atol=1e-3)
    assert away[0] > 1.3 * max(away[1:]) and min(away[1:]) > 0


# --- logits as action values ------------------------------------------------------------------------------------------


def completion(seed=0, batch=4, time=5, vocabulary=7):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(batch, time, vocabulary)), jnp.float32)
    reference = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(batch, time, vocabulary)), jnp.float32))
    tokens = jnp.asarray(rng.integers(vocabulary, size=(batch, time)))
    mask = jnp.arange(time)[None] < jnp.asarray([5, 3, 1, 4])[:, None]
    reference = jnp.take_along_axis(reference, tokens[..., None], -1)[..., 0]
    return logits, reference, tokens, mask


def test_exp_of_the_advantages_sums_to_one_over_the_actions():
    logits, reference, _, _ = completion()
    whole = jnp.ones(reference.shape, bool)
    each = [
        analysis.logit_q_decomposition(logits, reference, jnp.full(reference.shape, v), whole, beta=0.5).advantages
        for v in range(7)
    ]
    np.testing.assert_allclose(sum(jnp.exp(a / 0.5) for a in each), 1, rtol=1e-5)


def test_the_log_ratio_is_the_return_minus_the_first_value():
    logits, reference, tokens, mask = completion()
    got = analysis.logit_q_decomposition(logits, reference, tokens, mask, beta=0.5)
    logps = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
    ratio = jnp.sum(jnp.where(mask, logps - reference, 0), -1)
    np.testing.assert_allclose(0.5 * ratio, got.rewards.sum(-1) - got.values[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.advantages, jnp.where(mask, 0.5 * logps, 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_nothing_behind_the_mask_is_seen(poison):
    logits, reference, tokens, mask = completion()
    clean = analysis.logit_q_decomposition(logits, reference, tokens, mask)
    dirty = analysis.logit_q_decomposition(
        jnp.where(mask[..., None], logits, poison),
        jnp.where(mask, reference, poison),
        jnp.where(mask, tokens, 99),
        mask,
    )
    for got, want in zip(dirty, clean, strict=True):
        np.testing.assert_array_equal(got, want)
