"""Baselines, returns and whitening against their identities in the catalogue and against plain loops."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment.losses import reductions
from alignment.policy_gradients import (
    clip_advantages,
    dr_grpo_advantages,
    gae,
    gae_whitened,
    grpo_advantages,
    grpo_process_advantages,
    kl_shaped_rewards,
    masked_whiten,
    masked_whiten_keep_mean,
    reinforce,
    reinforce_pp_advantages,
    reinforce_pp_baseline_advantages,
    remax_advantages,
    remax_kl_to_go_advantages,
    remax_one_step_kl_advantages,
    rloo_advantages,
    terminal_rewards,
)

few = hypothesis.settings(deadline=None, max_examples=15)
RNG = np.random.default_rng(0)
N, T = 9, 6
REWARDS = jnp.asarray(RNG.normal(size=N), jnp.float32)
GROUPS = jnp.asarray([3, -1, 3, 7, -1, 3, 7, -1, 3])  # sizes 4, 3 and 2, nowhere together
VALID = jnp.ones(N, bool)
MASK = jnp.asarray(RNG.random((N, T)) < 0.6).at[:, 0].set(True)
TOKENS, VALUES = (jnp.asarray(RNG.normal(size=(N, T)), jnp.float32) for _ in range(2))
GROUPED = {"grpo": grpo_advantages, "dr_grpo": dr_grpo_advantages, "rloo": rloo_advantages}
each = pytest.mark.parametrize("name", GROUPED)


def loops(name, rewards, groups, valid):
    """The three group baselines, one completion after the other."""
    out = np.zeros(len(rewards))
    for i in range(len(rewards)):
        if not valid[i]:
            continue
        members = [r for r, g, v in zip(rewards, groups, valid, strict=True) if v and g == groups[i]]
        if name == "rloo":
            out[i] = rewards[i] - ((sum(members) - rewards[i]) / (len(members) - 1) if len(members) > 1 else 0)
        elif len(members) > 1:
            out[i] = rewards[i] - np.mean(members)
            if name == "grpo":
                out[i] = 0 if max(members) == min(members) else out[i] / (np.std(members, ddof=1) + 1e-6)
    return out


@each
@few
@hypothesis.given(
    rewards=hnp.arrays(np.float32, 8, elements=st.sampled_from([-1.0, 0.0, 0.1, 0.5, 1.0, 3.0])),
    groups=hnp.arrays(np.int32, 8, elements=st.integers(-2, 2)),
    valid=hnp.arrays(bool, 8),
)
def test_group_baselines_equal_explicit_loops_whatever_the_groups(name, rewards, groups, valid):
    got = GROUPED[name](jnp.asarray(rewards), jnp.asarray(groups), jnp.asarray(valid))
    np.testing.assert_allclose(got, loops(name, rewards.astype(np.float64), groups, valid), rtol=1e-4, atol=1e-5)


@each
def test_advantages_sum_to_zero_within_a_group(name):
    got = np.asarray(GROUPED[name](REWARDS, GROUPS, VALID))
    for group in (3, -1, 7):
        np.testing.assert_allclose(got[group == GROUPS].sum(), 0, atol=1e-5)


@each
def test_a_constant_per_prompt_changes_nothing(name):
    shifted = REWARDS + jnp.asarray([0.0, 5.0, -2.0])[jnp.asarray([0, 1, 0, 2, 1, 0, 2, 1, 0])]
    np.testing.assert_allclose(
        GROUPED[name](shifted, GROUPS, VALID), GROUPED[name](REWARDS, GROUPS, VALID), rtol=1e-4, atol=1e-5
    )


@each
@pytest.mark.parametrize("value", [0.1, 1 / 3, -1e4, 1e-30])
def test_equal_rewards_give_exactly_nothing(name, value):
    rewards = jnp.full(7, value, jnp.float32)
    np.testing.assert_array_equal(GROUPED[name](rewards, jnp.zeros(7, jnp.int32), jnp.ones(7, bool)), 0.0)


def test_tied_others_do_not_blow_an_advantage_up():
    """Leave-one-out baseline over leave-one-out spread is what does; all-group statistics cannot."""
    got = grpo_advantages(jnp.asarray([1.0, 0, 0, 0]), jnp.zeros(4, jnp.int32), jnp.ones(4, bool))
    np.testing.assert_allclose(got, [1.5, -0.5, -0.5, -0.5], rtol=1e-4)


def test_groups_of_one_are_raw_rewards_for_rloo_and_nothing_for_the_others():
    groups = jnp.arange(N)
    np.testing.assert_array_equal(rloo_advantages(REWARDS, groups, VALID), REWARDS)
    np.testing.assert_array_equal(grpo_advantages(REWARDS, groups, VALID), 0.0)
    np.testing.assert_array_equal(dr_grpo_advantages(REWARDS, groups, VALID), 0.0)


def test_rloo_is_k_over_k_minus_one_times_dr_grpo():
    sizes = jnp.sum(GROUPS[:, None] == GROUPS[None, :], -1)
    np.testing.assert_allclose(
        rloo_advantages(REWARDS, GROUPS, VALID),
        sizes / (sizes - 1) * dr_grpo_advantages(REWARDS, GROUPS, VALID),
        rtol=1e-5,
    )


def test_rloo_of_two_is_their_difference():
    got = rloo_advantages(jnp.asarray([2.0, 5.0]), jnp.zeros(2, jnp.int32), jnp.ones(2, bool))
    np.testing.assert_allclose(got, [-3.0, 3.0])


def test_grpo_is_invariant_to_positive_affine_maps_of_the_rewards():
    got = grpo_advantages(4 * REWARDS - 3, GROUPS, VALID, eps=1e-12)
    np.testing.assert_allclose(got, grpo_advantages(REWARDS, GROUPS, VALID, eps=1e-12), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("right", [1, 3, 7])
def test_grpo_of_binary_rewards_has_its_closed_form_and_ddof_its_factor(right):
    size = 8
    rewards = (jnp.arange(size) < right).astype(jnp.float32)
    ids, valid, p = jnp.zeros(size, jnp.int32), jnp.ones(size, bool), right / size
    biased = grpo_advantages(rewards, ids, valid, ddof=0)
    wanted = jnp.where(rewards == 1, np.sqrt((1 - p) / p), -np.sqrt(p / (1 - p)))
    np.testing.assert_allclose(biased, wanted, rtol=1e-4)
    unbiased = grpo_advantages(rewards, ids, valid)
    np.testing.assert_allclose(unbiased, biased * np.sqrt((size - 1) / size), rtol=1e-4)
    # The weight of the question: mean A * ratio is sqrt(p (1 - p)) times the difference of the two mean ratios.
    ratios = jnp.asarray(RNG.random(size), jnp.float32)
    difference = ratios[:right].mean() - ratios[right:].mean()
    np.testing.assert_allclose(jnp.mean(biased * ratios), np.sqrt(p * (1 - p)) * difference, rtol=1e-3, atol=1e-6)


def _expected_reinforce_gradient(estimator, k):
    """Mean over all draws of k actions of the policy gradient with an estimator's advantages, by enumeration."""
    logits, rewards = jnp.asarray([0.3, -0.5, 0.1]), jnp.asarray([1.0, -2.0, 0.5])
    draws = np.stack(np.meshgrid(*[range(3)] * k, indexing="ij"), -1).reshape(-1, k)
    ids, valid = jnp.zeros(k, jnp.int32), jnp.ones(k, bool)
    logps = jax.nn.log_softmax(logits)
    weights = jnp.exp(logps[draws].sum(-1))
    advantages = jax.vmap(lambda d: estimator(rewards[d], ids, valid))(jnp.asarray(draws))

    def loss(x):
        values = jax.vmap(lambda d, a: reinforce(jax.nn.log_softmax(x)[d], a, valid))(jnp.asarray(draws), advantages)
        return jnp.sum(weights * values.mean(-1))

    exact = jax.grad(lambda x: -jnp.sum(jax.nn.softmax(x) * rewards))(logits)
    return jax.grad(loss)(logits), exact


@pytest.mark.parametrize("k", [2, 3])
def test_the_expected_gradient_of_rloo_is_the_policy_gradient_and_dr_grpos_is_k_minus_one_kths_of_it(k):
    got, exact = _expected_reinforce_gradient(rloo_advantages, k)
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-6)
    got, _ = _expected_reinforce_gradient(dr_grpo_advantages, k)
    np.testing.assert_allclose(got, (k - 1) / k * exact, rtol=1e-4, atol=1e-6)


def test_groups_may_span_devices():
    count = min(8, jax.device_count())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    rewards, groups, valid = REWARDS[:8], GROUPS[:8], VALID[:8].at[2].set(False)
    split = PartitionSpec("data")
    for name, estimator in GROUPED.items():
        sharded = jax.shard_map(
            lambda *a, e=estimator: e(*a, axis_name="data"), mesh=mesh, in_specs=(split,) * 3, out_specs=split
        )
        got = jax.jit(sharded)(rewards, groups, valid)
        np.testing.assert_allclose(got, estimator(rewards, groups, valid), rtol=1e-5, atol=1e-6, err_msg=name)


# ----------------------------------------------------------------------------------------------- process supervision


def test_process_supervision_with_one_step_at_the_end_is_grpo():
    token_rewards = terminal_rewards(REWARDS, MASK)
    last = jnp.cumsum(MASK[:, ::-1], -1)[:, ::-1] * MASK == 1
    got = grpo_process_advantages(token_rewards, last, GROUPS, VALID)
    wanted = grpo_advantages(REWARDS, GROUPS, VALID)
    np.testing.assert_allclose(got[:, 0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.where(last, got - wanted[:, None], 0.0), 0.0, atol=1e-5)


def test_process_advantages_are_sums_to_go_of_scores_with_mean_zero_over_the_steps_of_a_group():
    got = np.asarray(grpo_process_advantages(TOKENS, MASK, GROUPS, VALID))
    scores = got - np.pad(got[:, 1:], ((0, 0), (0, 1)))
    for group in (3, -1, 7):
        of_group = scores[np.asarray(GROUPS) == group][np.asarray(MASK)[np.asarray(GROUPS) == group]]
        np.testing.assert_allclose(of_group.mean(), 0, atol=1e-5)
        np.testing.assert_allclose(of_group.std(ddof=1), 1, rtol=1e-4)
    np.testing.assert_allclose(scores[~np.asarray(MASK)], 0, atol=1e-5)


def test_equal_step_rewards_give_exactly_nothing():
    np.testing.assert_array_equal(grpo_process_advantages(jnp.full((N, T), 0.1), MASK, GROUPS, VALID), 0.0)


# ---------------------------------------------------------------------------------------------------------------- remax


def test_remax_forgets_what_the_prompt_adds_to_both_rewards():
    greedy = jnp.asarray(RNG.normal(size=N), jnp.float32)
    shift = jnp.asarray(RNG.normal(size=N) * 100, jnp.float32)
    np.testing.assert_allclose(
        remax_advantages(REWARDS + shift, greedy + shift), remax_advantages(REWARDS, greedy), atol=1e-4
    )
    np.testing.assert_array_equal(remax_advantages(greedy, greedy), 0.0)


def test_remax_is_unbiased_and_a_deterministic_policy_has_no_gradient():
    rewards = jnp.asarray([1.0, -2.0, 0.5])

    def expected_gradient(logits):
        logps = jax.nn.log_softmax(logits)
        greedy = rewards[jnp.argmax(logits)]
        advantages = remax_advantages(rewards, jnp.full(3, greedy), limit=np.inf)
        return jax.grad(
            lambda x: jnp.sum(jnp.exp(logps) * reinforce(jax.nn.log_softmax(x), advantages, jnp.ones(3, bool)))
        )(logits)

    logits = jnp.asarray([0.3, -0.5, 0.1])
    exact = jax.grad(lambda x: -jnp.sum(jax.nn.softmax(x) * rewards))(logits)
    np.testing.assert_allclose(expected_gradient(logits), exact, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(expected_gradient(jnp.asarray([200.0, 0.0, 0.0])), 0.0, atol=1e-6)


def test_remax_to_go_is_the_shaped_reward_to_go_minus_the_greedy_baseline():
    old, reference = TOKENS, VALUES
    greedy = jnp.asarray(RNG.normal(size=N), jnp.float32)
    shaped = kl_shaped_rewards(REWARDS, old, reference, MASK, beta=0.3)
    to_go = jnp.cumsum(shaped[:, ::-1], -1)[:, ::-1] - greedy[:, None]
    got = remax_kl_to_go_advantages(REWARDS, greedy, old, reference, MASK, beta=0.3, limit=np.inf)
    np.testing.assert_allclose(got, jnp.where(MASK, to_go, 0.0), rtol=1e-4, atol=1e-5)


def test_both_remax_penalties_agree_on_the_last_token_and_without_a_penalty_on_all():
    greedy, last = jnp.zeros(N), jnp.cumsum(MASK[:, ::-1], -1)[:, ::-1] * MASK == 1
    arrays = (REWARDS, greedy, TOKENS, VALUES, MASK)
    one, to_go = remax_one_step_kl_advantages(*arrays), remax_kl_to_go_advantages(*arrays)
    np.testing.assert_allclose(one[last], to_go[last], rtol=1e-5)
    assert np.abs(one - to_go).max() > 0.01
    for estimator in (remax_one_step_kl_advantages, remax_kl_to_go_advantages):
        wanted = jnp.where(MASK, remax_advantages(REWARDS, greedy)[:, None], 0.0)
        np.testing.assert_array_equal(estimator(*arrays, beta=0.0), wanted)


# ------------------------------------------------------------------------------------------------------------------ gae


def naive_gae(rewards, values, mask, gamma, lam):
    advantages, returns = np.zeros(rewards.shape), np.zeros(rewards.shape)
    for i in range(len(rewards)):
        next_value = advantage = 0.0
        for t in reversed(range(rewards.shape[1])):
            if mask[i, t]:
                advantage = rewards[i, t] + gamma * next_value - values[i, t] + gamma * lam * advantage
                next_value = values[i, t]
                advantages[i, t], returns[i, t] = advantage, advantage + values[i, t]
    return advantages, returns


@few
@hypothesis.given(
    mask=hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 6))),
    seed=st.integers(0, 2**16),
    gamma=st.sampled_from([0.0, 0.5, 1.0]),
    lam=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_gae_equals_an_explicit_loop_whatever_the_mask(mask, seed, gamma, lam):
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=mask.shape), rng.normal(size=mask.shape)
    got = gae(
        jnp.asarray(rewards, jnp.float32), jnp.asarray(values, jnp.float32), jnp.asarray(mask), gamma=gamma, lam=lam
    )
    wanted = naive_gae(rewards, values, mask, gamma, lam)
    np.testing.assert_allclose(got["token_advantages"], wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["token_returns"], wanted[1], rtol=1e-4, atol=1e-5)


def test_undiscounted_monte_carlo_returns_are_sums_of_rewards_whatever_the_values():
    to_go = jnp.cumsum(jnp.where(MASK, TOKENS, 0.0)[:, ::-1], -1)[:, ::-1]
    for values in (VALUES, 100 * VALUES):
        got = gae(TOKENS, values, MASK, gamma=1.0, lam=1.0)["token_returns"]
        np.testing.assert_allclose(got, jnp.where(MASK, to_go, 0.0), rtol=1e-3, atol=1e-3)


def test_values_that_are_the_returns_leave_no_advantage():
    to_go = jnp.cumsum(jnp.where(MASK, TOKENS, 0.0)[:, ::-1], -1)[:, ::-1]
    for lam in (0.0, 0.5, 1.0):
        got = gae(TOKENS, to_go, MASK, gamma=1.0, lam=lam)
        np.testing.assert_allclose(got["token_advantages"], 0.0, atol=1e-5)


def test_tool_tokens_in_the_middle_leave_the_other_advantages_unchanged():
    insert = lambda x, fill: jnp.concatenate([x[:, :2], jnp.full((N, 3), fill, x.dtype), x[:, 2:]], -1)  # noqa: E731
    plain = gae(TOKENS, VALUES, MASK, gamma=0.9, lam=0.8)
    with_tools = gae(insert(TOKENS, 7.0), insert(VALUES, -5.0), insert(MASK, False), gamma=0.9, lam=0.8)
    for name in plain:
        np.testing.assert_array_equal(jnp.delete(with_tools[name], jnp.arange(2, 5), axis=1), plain[name])


def test_rows_of_different_lengths_are_each_what_they_are_alone():
    row = gae(TOKENS[:1, :3], VALUES[:1, :3], jnp.ones((1, 3), bool))
    mask = jnp.ones((2, T), bool).at[0, 3:].set(False)
    both = gae(TOKENS[:2], VALUES[:2], mask)
    for name in row:
        np.testing.assert_allclose(both[name][0, :3], row[name][0], rtol=1e-6)


def test_returns_are_those_of_the_advantages_before_whitening():
    valid = VALID.at[3].set(False)
    plain, whitened = gae(TOKENS, VALUES, MASK), gae_whitened(TOKENS, VALUES, MASK, valid)
    np.testing.assert_array_equal(whitened["token_returns"], plain["token_returns"])
    np.testing.assert_array_equal(whitened["token_advantages"], masked_whiten(plain["token_advantages"], MASK, valid))
    assert np.abs(whitened["token_advantages"] - plain["token_advantages"]).max() > 0.01


# ------------------------------------------------------------------------------------------------------------ whitening


def test_whitened_values_have_mean_zero_and_unbiased_variance_one_over_what_counts():
    valid = VALID.at[2].set(False)
    counts = np.asarray(MASK & valid[:, None])
    got = np.asarray(masked_whiten(3 * TOKENS + 5, MASK, valid))
    np.testing.assert_allclose(got[counts].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(got[counts].var(ddof=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(got[~counts], 0.0)
    kept = np.asarray(masked_whiten_keep_mean(3 * TOKENS + 5, MASK, valid))
    np.testing.assert_allclose(kept[counts].mean(), np.asarray(3 * TOKENS + 5)[counts].mean(), rtol=1e-5)
    np.testing.assert_allclose(kept[counts].var(ddof=1), 1, rtol=1e-4)


def test_whitening_is_invariant_to_positive_affine_maps():
    np.testing.assert_allclose(
        masked_whiten(7 * TOKENS - 4, MASK, VALID), masked_whiten(TOKENS, MASK, VALID), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("count", [0, 1])
def test_whitening_of_no_token_or_one_is_zero(count):
    mask = jnp.zeros((2, 3), bool).at[0, 1].set(bool(count))
    np.testing.assert_array_equal(masked_whiten(jnp.full((2, 3), 4.0), mask, jnp.ones(2, bool)), 0.0)


def test_whitening_per_micro_batch_is_another_function():
    """Why whitening kernels are batch-wide: halves whitened apart are not the whole."""
    halves = [masked_whiten(TOKENS[i], MASK[i], VALID[i]) for i in (slice(0, 4), slice(4, N))]
    assert np.abs(np.concatenate(halves) - masked_whiten(TOKENS, MASK, VALID)).max() > 0.01


def test_a_clip_out_of_reach_leaves_the_advantages():
    np.testing.assert_array_equal(clip_advantages(TOKENS, MASK, limit=np.inf), jnp.where(MASK, TOKENS, 0.0))
    assert np.abs(clip_advantages(TOKENS, MASK)).max() == 0.5


# --------------------------------------------------------------------------------------------------------- reinforce++


def test_reinforce_pp_with_a_terminal_reward_gives_all_tokens_of_a_completion_the_same():
    got = np.asarray(reinforce_pp_advantages(terminal_rewards(REWARDS, MASK), MASK, VALID))
    for row, mask in zip(got, np.asarray(MASK), strict=True):
        np.testing.assert_allclose(row[mask], row[0], rtol=1e-5)


def test_reinforce_pp_is_the_whitened_discounted_return_over_the_tokens_that_count():
    returns = naive_gae(np.asarray(TOKENS), np.zeros((N, T)), np.asarray(MASK), 0.9, 1.0)[0]
    got = reinforce_pp_advantages(TOKENS, MASK, VALID, gamma=0.9)
    np.testing.assert_allclose(got, masked_whiten(jnp.asarray(returns, jnp.float32), MASK, VALID), rtol=1e-4, atol=1e-5)
    counts = np.asarray(MASK)
    np.testing.assert_allclose(np.asarray(got)[counts].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(got)[counts].var(ddof=1), 1, rtol=1e-5)


def test_reinforce_pp_weighs_completions_by_their_length_in_the_moments():
    """One completion of six tokens and one of a single token: the mean lies six sevenths of the way to the long one."""
    mask = jnp.ones((2, T), bool).at[1, 1:].set(False)
    got = reinforce_pp_advantages(terminal_rewards(jnp.asarray([1.0, 0.0]), mask), mask, jnp.ones(2, bool))
    np.testing.assert_allclose(got[1, 0] / got[0, 0], -T, rtol=1e-5)


def test_reinforce_pp_baseline_whitens_what_the_group_mean_leaves():
    got = reinforce_pp_baseline_advantages(REWARDS, GROUPS, MASK, VALID)
    centred = jnp.where(MASK, dr_grpo_advantages(REWARDS, GROUPS, VALID)[:, None], 0.0)
    np.testing.assert_array_equal(got, masked_whiten(centred, MASK, VALID))


def test_a_long_completion_pulls_no_more_than_its_tokens_under_sequence_sum():
    """The gradient of REINFORCE on whole completions: -A for each token, over the number of completions."""
    advantages = jnp.where(MASK, rloo_advantages(REWARDS, GROUPS, VALID)[:, None], 0.0)

    def loss(policy):
        total, weight = reductions.sequence_sum(reinforce(policy, advantages, MASK), MASK)
        return total / weight

    np.testing.assert_allclose(jax.grad(loss)(TOKENS), -advantages / N, rtol=1e-5)


@pytest.mark.parametrize("kernel", [grpo_advantages, rloo_advantages])
def test_a_square_of_groups_by_responses_is_refused(kernel):
    square = jnp.zeros((4, 4))
    with pytest.raises(AssertionError, match="rewards must have one axis"):
        kernel(square, square.astype(jnp.int32), square == 0)
