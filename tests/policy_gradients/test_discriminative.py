"""DisCO against its definition prompt by prompt, its limits, its gradients, and GRPO seen through it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import policy_gradients as pg

IDS = np.array([4, 9, 4, 9, 9, 4, 4, 2])
CORRECT = np.array([True, False, False, True, False, False, True, True])
N, T = 8, 5


def batch(seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    mask = rng.random((N, T)) < 0.7
    mask[:, 0] = True
    policy = -rng.gamma(1.0, size=(N, T))
    behaviour = policy + noise * rng.normal(size=(N, T))
    return jnp.asarray(policy, jnp.float32), jnp.asarray(behaviour, jnp.float32), jnp.asarray(mask)


def run(kernel, policy, behaviour, mask, correct=CORRECT, ids=IDS, **hyper):
    logps = (policy, behaviour) if "ratio" in kernel.__name__ else (policy,)
    rest = jnp.asarray(correct), jnp.asarray(ids), mask, jnp.ones(len(ids), bool)
    return kernel(*logps, *rest, **hyper)


def scores_of(kernel, policy, behaviour, mask):
    values = np.exp(policy - behaviour) if "ratio" in kernel.__name__ else np.asarray(policy)
    return (np.where(mask, values, 0.0).sum(-1) / np.asarray(mask).sum(-1)).astype(float)


def objective(scores, of_wrong, correct=CORRECT, ids=IDS):
    """-J, one prompt after the other."""
    parts = []
    for g in np.unique(ids):
        right, wrong = scores[(ids == g) & correct], scores[(ids == g) & ~correct]
        parts.append(right.mean() - of_wrong(wrong) if right.size and wrong.size else 0.0)
    return -np.mean(parts)


B_KERNELS = (pg.disco_b_log_likelihood, pg.disco_b_likelihood_ratio)
DRO_KERNELS = (pg.disco_log_likelihood, pg.disco_likelihood_ratio)
each = pytest.mark.parametrize("kernel", B_KERNELS + DRO_KERNELS, ids=lambda k: k.__name__)
each_pair = pytest.mark.parametrize("dro,plain", list(zip(DRO_KERNELS, B_KERNELS, strict=True)))


@each
@pytest.mark.parametrize("seed", range(3))
def test_mean_over_the_batch_is_the_objective(kernel, seed):
    data = batch(seed)
    hyper = {"tau": 0.4} if kernel in DRO_KERNELS else {}
    of_wrong = (lambda s: 0.4 * np.log(np.mean(np.exp(s / 0.4)))) if hyper else np.mean
    expected = objective(scores_of(kernel, *data), of_wrong)
    np.testing.assert_allclose(jnp.mean(run(kernel, *data, **hyper)), expected, rtol=1e-4)


@each_pair
def test_a_large_tau_is_the_mean_and_a_small_one_the_maximum(dro, plain):
    data = batch()
    grad = jax.grad(lambda x, kernel, **hyper: jnp.mean(run(kernel, x, *data[1:], **hyper)))
    np.testing.assert_allclose(run(dro, *data, tau=1e6), run(plain, *data), rtol=1e-4)
    np.testing.assert_allclose(grad(data[0], dro, tau=1e6), grad(data[0], plain), rtol=1e-4, atol=1e-7)
    lowest = objective(scores_of(dro, *data), np.max)
    np.testing.assert_allclose(jnp.mean(run(dro, *data, tau=1e-4)), lowest, atol=1e-3)  # off by up to tau log |N|


@each
@pytest.mark.parametrize("verdict", [True, False])
def test_prompts_all_right_or_all_wrong_train_nothing_but_count(kernel, verdict):
    policy, behaviour, mask = batch()
    correct = np.where(IDS == 4, verdict, CORRECT)

    def loss(x):
        return jnp.mean(run(kernel, x, behaviour, mask, correct))

    gradient = np.asarray(jax.grad(loss)(policy))
    np.testing.assert_array_equal(gradient[IDS == 4], 0)
    assert np.abs(gradient[IDS == 9]).max() > 1e-3
    of_wrong = np.mean if kernel in B_KERNELS else None
    if of_wrong:
        np.testing.assert_allclose(
            loss(policy), objective(scores_of(kernel, policy, behaviour, mask), of_wrong, correct), rtol=1e-4
        )


@pytest.mark.parametrize("ratio,likelihood", [(B_KERNELS[1], B_KERNELS[0]), (DRO_KERNELS[1], None)])
def test_the_ratio_on_the_policys_own_samples_is_zero_with_the_gradient_of_the_log_likelihood(ratio, likelihood):
    policy, _, mask = batch()
    np.testing.assert_allclose(jnp.sum(run(ratio, policy, policy, mask)), 0.0, atol=1e-5)
    # With equal scores softmax(s / tau) is the mean, so both kinds of DisCO on ratios have DisCO-b's gradient.
    got = jax.grad(lambda x: jnp.mean(run(ratio, x, policy, mask)))(policy)
    expected = jax.grad(lambda x: jnp.mean(run(likelihood or B_KERNELS[0], x, policy, mask)))(policy)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_wrong_completions_are_weighed_by_a_softmax_of_their_scores():
    policy, behaviour, mask = batch()
    gradient = jax.grad(lambda x: jnp.mean(run(pg.disco_log_likelihood, x, behaviour, mask, tau=0.3)))(policy)
    scores = scores_of(pg.disco_log_likelihood, policy, behaviour, mask)
    for g in (4, 9):
        wrong = (g == IDS) & ~CORRECT
        weights = np.exp(scores[wrong] / 0.3)
        # Three prompts; d s / d logp of each of a completion's tokens is 1 / |y|, so a row adds up to its weight.
        np.testing.assert_allclose(np.sum(gradient, -1)[wrong], weights / weights.sum() / 3, rtol=1e-4)
        right = (g == IDS) & CORRECT
        np.testing.assert_allclose(np.sum(gradient, -1)[right], -1 / right.sum() / 3, rtol=1e-4)


def prompt_objectives(policy, behaviour, mask):
    """J_q of each prompt, out of the values of DisCO-b on ratios."""
    values = np.asarray(run(pg.disco_b_likelihood_ratio, policy, behaviour, mask))
    groups = np.unique(IDS)
    return {g: -values[g == IDS].sum() * len(groups) / N for g in groups}


def test_grpo_is_disco_b_on_ratios_with_prompts_weighed_by_the_deviation_of_their_rewards():
    policy, behaviour, mask = batch()
    ratios = scores_of(pg.disco_b_likelihood_ratio, policy, behaviour, mask)
    for g, contrast in prompt_objectives(policy, behaviour, mask).items():
        r = CORRECT[g == IDS].astype(float)
        advantages = (r - r.mean()) / r.std() if r.std() > 0 else 0 * r
        p = r.mean()
        np.testing.assert_allclose(
            np.mean(advantages * ratios[g == IDS]), np.sqrt(p * (1 - p)) * contrast, rtol=1e-4, atol=1e-6
        )


def test_grpo_with_its_clip_is_the_same_with_clipped_ratios_as_scores():
    policy, behaviour, mask = batch(1, noise=0.6)
    ratios, m, eps = np.exp(np.asarray(policy - behaviour)), np.asarray(mask), 0.2
    for g in (4, 9):
        rows = g == IDS
        r = CORRECT[rows].astype(float)
        a = ((r - r.mean()) / r.std())[:, None]
        clipped = np.minimum(ratios[rows] * a, np.clip(ratios[rows], 1 - eps, 1 + eps) * a)
        grpo = np.mean((clipped * m[rows]).sum(-1) / m[rows].sum(-1))
        scores = np.where(CORRECT[:, None], np.minimum(ratios, 1 + eps), np.maximum(ratios, 1 - eps))
        s, p = ((scores * m).sum(-1) / m.sum(-1))[rows], r.mean()
        np.testing.assert_allclose(grpo, np.sqrt(p * (1 - p)) * (s[r == 1].mean() - s[r == 0].mean()), rtol=1e-5)


def penalty(policy, behaviour, mask, **hyper):
    return jnp.mean(pg.disco_trust_region(policy, behaviour, mask, jnp.ones(N, bool), **hyper))


def test_inside_the_trust_region_the_penalty_and_its_gradient_are_exactly_zero():
    policy, _, mask = batch()
    for behaviour, delta in ((policy, 1e-4), (policy - 0.5, 1e-4), (policy + 0.5, 0.51)):  # KL 0, -1/2 and 1/2
        value, gradient = jax.value_and_grad(penalty)(policy, behaviour, mask, delta=delta)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


def test_outside_the_gradient_is_beta_times_the_excess_times_that_of_the_kl():
    policy, behaviour, mask = batch()
    behaviour = behaviour + 0.4
    kl = np.where(mask, behaviour - policy, 0.0).sum() / np.asarray(mask).sum()
    got = jax.grad(penalty)(policy, behaviour, mask, delta=0.1, beta=3.0)
    expected = np.where(mask, 3.0 * (kl - 0.1) * -1 / np.asarray(mask).sum(), 0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    np.testing.assert_allclose(penalty(policy, behaviour, mask, delta=0.1, beta=3.0), 1.5 * (kl - 0.1) ** 2, rtol=1e-4)
