"""The clipped surrogates against REINFORCE, against each other, and against where their gradients must vanish."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import reductions
from alignment.policy_gradients import (
    balance_groups,
    cispo,
    cispo_masked,
    dr_grpo_advantages,
    gmpo,
    gspo,
    gspo_token,
    kl_k3,
    ppo,
    ppo_dual_clip,
    ppo_sequence,
    ppo_value_loss,
    reinforce,
)

few = hypothesis.settings(deadline=None, max_examples=15)
N, T = 6, 5
RNG = np.random.default_rng(0)
POLICY = jnp.asarray(-2 + 0.3 * RNG.normal(size=(N, T)), jnp.float32)
OLD = jnp.asarray(-2 + 0.3 * RNG.normal(size=(N, T)), jnp.float32)
MASK = jnp.asarray(RNG.random((N, T)) < 0.7).at[:, 0].set(True)
A = jnp.asarray(RNG.normal(size=N), jnp.float32)
TOKEN_A = jnp.where(MASK, A[:, None], 0.0)
LENGTHS = MASK.sum(-1)
RATIOS = jnp.where(MASK, jnp.exp(POLICY - OLD), 1.0)
TOKEN = {
    "ppo": ppo,
    "ppo_dual_clip": ppo_dual_clip,
    "gspo_token": gspo_token,
    "cispo": cispo,
    "cispo_masked": cispo_masked,
}
SEQUENCE = {"gspo": gspo, "gmpo": gmpo}


def reduced(reduction, values):
    total, weight = reduction(values, MASK)
    return total / weight


def token_loss(kernel, reduction=reductions.sequence_mean, **hyper):
    return lambda policy, old=OLD, advantages=TOKEN_A: reduced(
        reduction, kernel(policy, old, advantages, MASK, **hyper)
    )


def sequence_loss(kernel, **hyper):
    return lambda policy, old=OLD, advantages=A: jnp.mean(kernel(policy, old, advantages, MASK, **hyper))


def reinforce_gradient(reduction):
    return jax.grad(lambda policy: reduced(reduction, reinforce(policy, TOKEN_A, MASK)))(POLICY)


def point(kernel, ratio, advantage, **hyper):
    """Value and slope in log pi of one token at a ratio."""

    def loss(x):
        return kernel(x[None], jnp.zeros(1), jnp.full(1, advantage, jnp.float32), jnp.ones(1, bool), **hyper)[0]

    return jax.value_and_grad(loss)(jnp.log(jnp.asarray(ratio, jnp.float32)))


# ------------------------------------------------------------------------------------------------------------ on-policy


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sequence_sum", "constant"])
@pytest.mark.parametrize("name", TOKEN)
def test_on_policy_every_token_surrogate_has_the_gradient_of_reinforce(name, reduction):
    mean = reductions.constant(7) if reduction == "constant" else getattr(reductions, reduction)
    got = jax.grad(token_loss(TOKEN[name], mean))(POLICY, POLICY)
    np.testing.assert_allclose(got, reinforce_gradient(mean), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SEQUENCE)
def test_on_policy_the_sequence_surrogates_have_the_gradient_of_grpo(name):
    got = jax.grad(sequence_loss(SEQUENCE[name]))(POLICY, POLICY)
    np.testing.assert_allclose(got, reinforce_gradient(reductions.sequence_mean), rtol=1e-5, atol=1e-7)


def test_on_policy_ppo_is_minus_the_mean_advantage():
    loss = token_loss(ppo, reductions.token_mean)(POLICY, POLICY)
    np.testing.assert_allclose(loss, -reduced(reductions.token_mean, TOKEN_A), rtol=1e-5)


def test_on_policy_ppo_sequence_is_reinforce_on_whole_completions():
    logps = jnp.sum(jnp.where(MASK, POLICY, 0.0), -1)
    got = jax.grad(lambda x: jnp.mean(ppo_sequence(x, logps, A)))(logps)
    tokens = reinforce_gradient(reductions.sequence_sum)
    np.testing.assert_allclose(jnp.where(MASK, got[:, None], 0.0), tokens, rtol=1e-5, atol=1e-7)


def test_a_bound_of_zero_still_has_the_whole_gradient_on_policy():
    """max(x, x) would give each of its branches half, and the clip's own bound half of that."""
    assert point(ppo, 1.0, 1.0, eps_low=0.0, eps_high=0.0)[1] == -1
    assert point(ppo, 1.0, -1.0, eps_low=0.0, eps_high=0.0)[1] == 1


# ------------------------------------------------------------------------------------------------------------------ ppo


def test_ppo_has_no_gradient_exactly_where_the_step_asked_for_is_already_taken():
    for ratio, advantage in itertools.product([0.3, 0.79, 0.81, 1.0, 1.27, 1.29, 5.0], [-2.0, 2.0]):
        slope = point(ppo, ratio, advantage, eps_low=0.2, eps_high=0.28)[1]
        if (advantage > 0 and ratio > 1.28) or (advantage < 0 and ratio < 0.8):
            assert slope == 0
        else:
            np.testing.assert_allclose(slope, -advantage * ratio, rtol=1e-5)


def test_ppo_is_never_below_the_unclipped_loss_and_is_the_larger_of_the_two():
    unclipped = jnp.where(MASK, -TOKEN_A * RATIOS, 0.0)
    clipped = jnp.where(MASK, -TOKEN_A * jnp.clip(RATIOS, 0.9, 1.1), 0.0)
    got = ppo(POLICY, OLD, TOKEN_A, MASK, eps_low=0.1, eps_high=0.1)
    np.testing.assert_allclose(got, jnp.maximum(unclipped, clipped), rtol=1e-5)
    assert (got >= unclipped - 1e-6).all() and (got > unclipped + 1e-3).any()


def test_dual_clip_holds_a_negative_advantage_at_c_with_no_gradient():
    value, slope = point(ppo_dual_clip, 50.0, -1.0, dual_clip=3.0)
    np.testing.assert_allclose(value, 3.0, rtol=1e-6)
    assert slope == 0
    value, slope = point(ppo, 50.0, -1.0)
    np.testing.assert_allclose((value, slope), (50.0, 50.0), rtol=1e-5)


@pytest.mark.parametrize("dual_clip", [np.inf, 1e6])
def test_a_dual_clip_out_of_reach_is_ppo(dual_clip):
    np.testing.assert_array_equal(
        ppo_dual_clip(POLICY, OLD, TOKEN_A, MASK, dual_clip=dual_clip), ppo(POLICY, OLD, TOKEN_A, MASK)
    )


def test_dual_clip_leaves_positive_advantages_alone():
    positive = jnp.abs(TOKEN_A)
    np.testing.assert_array_equal(
        ppo_dual_clip(POLICY, OLD, positive, MASK, dual_clip=1.01), ppo(POLICY, OLD, positive, MASK)
    )


def test_ratios_at_the_cap_are_finite_and_clip_higher_lets_them_rise():
    value, slope = point(ppo, np.exp(30.0), 1.0, eps_high=0.28)
    np.testing.assert_allclose(value, -1.28, rtol=1e-6)
    assert slope == 0


def test_grpo_off_policy_with_kl_at_the_reference_is_ppo_alone():
    got = ppo(POLICY, OLD, TOKEN_A, MASK) + 0.04 * kl_k3(POLICY, POLICY, MASK)
    np.testing.assert_array_equal(got, ppo(POLICY, OLD, TOKEN_A, MASK))


def test_dr_grpo_scales_its_gradient_with_the_rewards_and_shares_none_by_length():
    rewards, groups = jnp.asarray(RNG.normal(size=N), jnp.float32), jnp.array([0, 0, 0, 1, 1, 1])

    def gradient(scale):
        advantages = dr_grpo_advantages(scale * rewards, groups, jnp.ones(N, bool))
        return jax.grad(token_loss(ppo, reductions.constant(10)))(
            POLICY, POLICY, jnp.where(MASK, advantages[:, None], 0)
        )

    one = gradient(1.0)
    np.testing.assert_allclose(gradient(3.0), 3 * one, rtol=1e-4, atol=1e-7)
    advantages = dr_grpo_advantages(rewards, groups, jnp.ones(N, bool))
    np.testing.assert_allclose(one, jnp.where(MASK, -advantages[:, None] / (10 * N), 0.0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kernel", [ppo, ppo_dual_clip, cispo])
def test_the_token_mean_with_balanced_groups_is_the_mean_over_prompts_of_token_means(kernel):
    groups, valid = jnp.array([0, 4, 4, 0, 4, 9]), jnp.ones(N, bool).at[1].set(False)
    counts = np.asarray(MASK & valid[:, None])
    balanced = kernel(POLICY, OLD, balance_groups(TOKEN_A, groups, MASK, valid), MASK)
    plain = np.asarray(kernel(POLICY, OLD, TOKEN_A, MASK))
    of_groups = [plain[np.asarray(groups) == g][counts[np.asarray(groups) == g]].mean() for g in (0, 4, 9)]
    np.testing.assert_allclose(np.asarray(balanced)[counts].mean(), np.mean(of_groups), rtol=1e-5)
    assert abs(plain[counts].mean() - np.mean(of_groups)) > 1e-3


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sequence_sum"])
@few
@hypothesis.given(seed=st.integers(0, 2**16), cut=st.integers(1, N - 1))
def test_micro_batches_of_unequal_size_add_up_to_the_batch(reduction, seed, cut):
    rng = np.random.default_rng(seed)
    mask = jnp.asarray(rng.random((N, T)) < 0.5).at[0, 0].set(True)
    mean = getattr(reductions, reduction)
    weight = mean.weight(mask)

    def gradient(rows):
        def loss(policy):
            return mean.total(ppo(policy, OLD[rows], TOKEN_A[rows], mask[rows]), mask[rows]) / weight

        return jax.grad(loss)(POLICY[rows])

    pieces = [gradient(slice(0, cut)), gradient(slice(cut, N))]
    np.testing.assert_allclose(np.concatenate(pieces), gradient(slice(None)), rtol=1e-5, atol=1e-7)


# --------------------------------------------------------------------------------------------------------------- critic


def test_an_infinite_band_is_half_the_squared_error():
    values, old, returns = (jnp.asarray(RNG.normal(size=(N, T)), jnp.float32) for _ in range(3))
    got = ppo_value_loss(values, old, returns, MASK, clip=np.inf)
    np.testing.assert_allclose(got, jnp.where(MASK, (values - returns) ** 2 / 2, 0.0), rtol=1e-5)
    assert (ppo_value_loss(values, old, returns, MASK, clip=0.1) >= got - 1e-6).all()


def value_slope(v, old, target, clip=0.2):
    one = jnp.ones(1, bool)
    return float(
        jax.grad(lambda v: ppo_value_loss(v[None], jnp.full(1, old), jnp.full(1, target), one, clip=clip)[0])(v)
    )


def test_the_critic_stops_outside_the_band_only_where_the_clipped_error_is_the_larger():
    assert value_slope(1.0, 0.5, 2.0) == 0  # moved towards the return by more than the band
    np.testing.assert_allclose(value_slope(1.0, 0.5, 0.0), 1.0, rtol=1e-6)  # moved away: it is pulled back
    np.testing.assert_allclose(value_slope(0.6, 0.5, 2.0), -1.4, rtol=1e-6)  # within the band
    np.testing.assert_allclose(value_slope(0.5, 0.5, 2.0), -1.5, rtol=1e-6)  # where every epoch starts


def test_a_critic_at_its_target_has_at_most_the_clipped_error():
    values = jnp.array([3.0])
    got = ppo_value_loss(values, jnp.array([0.0]), values, jnp.ones(1, bool))
    np.testing.assert_allclose(got, (0.2 - 3.0) ** 2 / 2, rtol=1e-6)


# ----------------------------------------------------------------------------------------------------------------- gspo

WIDE = {"eps_low": 0.05, "eps_high": 0.08}


def test_gspo_token_with_one_advantage_per_completion_is_gspo_in_value_and_gradient():
    got = jax.value_and_grad(token_loss(gspo_token, **WIDE))(POLICY)
    wanted = jax.value_and_grad(sequence_loss(gspo, **WIDE))(POLICY)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4, atol=1e-7)
    norms = jnp.abs(wanted[1]).sum(-1)
    assert (norms == 0).any() and (norms > 0).any()  # some completions are clipped, some are not


def test_gspo_gradient_has_its_closed_form_and_clips_a_completion_as_a_whole():
    s = jnp.exp(jnp.sum(jnp.where(MASK, POLICY - OLD, 0.0), -1) / LENGTHS)
    clipped = jnp.where(A > 0, s > 1.08, s < 0.95)
    wanted = jnp.where(MASK & ~clipped[:, None], (-A * s / LENGTHS / N)[:, None], 0.0)
    np.testing.assert_allclose(jax.grad(sequence_loss(gspo, **WIDE))(POLICY), wanted, rtol=1e-4, atol=1e-8)


def test_of_one_token_gspo_is_ppo():
    one = jnp.arange(T) == 0
    mask = jnp.broadcast_to(one, (N, T))
    got = gspo(POLICY, OLD, A, mask, **WIDE)
    np.testing.assert_allclose(got, ppo(POLICY, OLD, jnp.where(mask, A[:, None], 0.0), mask, **WIDE)[:, 0], rtol=1e-5)


def test_gspo_does_not_see_how_the_log_ratio_is_spread_over_the_tokens():
    full = jnp.ones((N, T), bool)
    moved = POLICY.at[:, 0].add(0.5).at[:, 3].add(-0.5)
    np.testing.assert_allclose(gspo(moved, OLD, A, full, **WIDE), gspo(POLICY, OLD, A, full, **WIDE), rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------- cispo, gmpo


def test_cispo_loses_no_token():
    for ratio, advantage in itertools.product([0.01, 0.9, 1.1, 50.0], [-2.0, 2.0]):
        _, slope = point(cispo, ratio, advantage, eps_low=0.2, eps_high=0.3)
        np.testing.assert_allclose(slope, -np.clip(ratio, 0.8, 1.3) * advantage, rtol=1e-5)


def test_inside_the_band_cispo_has_the_gradient_of_ppo_and_outside_the_bound_where_ppo_has_none():
    for ratio, advantage in itertools.product([0.85, 1.0, 1.25], [-2.0, 2.0]):
        slopes = [point(k, ratio, advantage, eps_low=0.2, eps_high=0.3)[1] for k in (cispo, ppo)]
        np.testing.assert_allclose(*slopes, rtol=1e-5)
    slopes = [point(k, 9.0, 2.0, eps_low=0.2, eps_high=0.3)[1] for k in (cispo, ppo)]
    np.testing.assert_allclose(slopes, [-1.3 * 2, 0.0], rtol=1e-5)


def test_the_masked_form_of_cispo_has_the_gradient_of_ppo():
    bounds = {"eps_low": 0.1, "eps_high": 0.15}
    got, wanted = (jax.grad(token_loss(k, **bounds))(POLICY) for k in (cispo_masked, ppo))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-8)
    assert (jnp.abs(wanted)[MASK] == 0).any()


def test_by_default_cispo_has_no_lower_bound():
    np.testing.assert_allclose(point(cispo, 1e-3, 1.0)[1], -1e-3, rtol=1e-4)


def test_gmpo_without_clipping_is_gspo_without_clipping():
    got = jax.value_and_grad(sequence_loss(gmpo, eps=10.0))(POLICY)
    wanted = jax.value_and_grad(sequence_loss(gspo, eps_low=1.0, eps_high=100.0))(POLICY)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4, atol=1e-8)


def test_gmpo_gradient_has_its_closed_form_and_a_clipped_token_counts_in_the_mean_alone():
    eps = 0.15
    d = jnp.where(MASK, POLICY - OLD, 0.0)
    sign = jnp.sign(A)[:, None]
    clipped = sign * d > eps
    rho = jnp.exp(jnp.sum(jnp.where(MASK, jnp.where(clipped, sign * eps, d), 0.0), -1) / LENGTHS)
    assert (clipped & MASK).any() and (~clipped & MASK).any()
    value, gradient = jax.value_and_grad(sequence_loss(gmpo, eps=eps))(POLICY)
    np.testing.assert_allclose(value, jnp.mean(-A * rho), rtol=1e-5)
    wanted = jnp.where(MASK & ~clipped, (-A * rho / LENGTHS / N)[:, None], 0.0)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", [*TOKEN, *SEQUENCE])
def test_no_advantage_no_loss_and_no_gradient(name):
    loss = token_loss(TOKEN[name]) if name in TOKEN else sequence_loss(SEQUENCE[name])
    value, gradient = jax.value_and_grad(loss)(POLICY, OLD, jnp.zeros_like(TOKEN_A if name in TOKEN else A))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("name", [*TOKEN, *SEQUENCE])
def test_a_completion_without_a_token_has_no_gradient(name):
    kernel = TOKEN.get(name) or SEQUENCE[name]
    advantages = jnp.full((1, T), 2.0) if name in TOKEN else jnp.full(1, 2.0)
    empty = jnp.zeros((1, T), bool)
    gradient = jax.grad(lambda p: jnp.sum(kernel(p, OLD[:1], advantages, empty)))(jnp.full((1, T), jnp.nan))
    np.testing.assert_array_equal(gradient, 0.0)
