"""Rewards per token, length penalties and filters against their identities in the catalogue."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.policy_gradients import (
    clip_rewards,
    dr_grpo_advantages,
    dynamic_sampling_filter,
    grpo_advantages,
    kl_penalized_rewards,
    kl_shaped_rewards,
    overlong_shaping,
    return_improvements,
    span_shaped_rewards,
    terminal_rewards,
)

few = hypothesis.settings(deadline=None, max_examples=20)
RNG = np.random.default_rng(0)


@few
@hypothesis.given(mask=hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 5))), seed=st.integers(0, 2**16))
def test_shaped_rewards_sum_to_the_score_minus_beta_times_the_log_ratio_whatever_the_mask(mask, seed):
    rng = np.random.default_rng(seed)
    scores, old, reference = rng.normal(size=len(mask)), *rng.normal(size=(2, *mask.shape))
    got = np.asarray(
        kl_shaped_rewards(*(jnp.asarray(x, jnp.float32) for x in (scores, old, reference)), jnp.asarray(mask), beta=0.3)
    )
    wanted = np.where(mask.any(-1), scores, 0.0) - 0.3 * np.where(mask, old - reference, 0.0).sum(-1)
    np.testing.assert_allclose(got.sum(-1), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got[~mask], 0.0)


@few
@hypothesis.given(mask=hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 5))))
def test_the_score_stands_on_the_last_token_that_counts(mask):
    scores = np.arange(1.0, 1 + len(mask))
    got = np.asarray(terminal_rewards(jnp.asarray(scores, jnp.float32), jnp.asarray(mask)))
    for row, counts, score in zip(got, mask, scores, strict=True):
        wanted = np.zeros(len(row))
        if counts.any():
            wanted[np.flatnonzero(counts)[-1]] = score
        np.testing.assert_array_equal(row, wanted)


def test_a_policy_at_the_reference_pays_nothing():
    logps, mask = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), jnp.ones((3, 4), bool)
    scores = jnp.asarray(RNG.normal(size=3), jnp.float32)
    np.testing.assert_array_equal(kl_shaped_rewards(scores, logps, logps, mask), terminal_rewards(scores, mask))
    np.testing.assert_array_equal(
        kl_shaped_rewards(scores, logps, logps + 1, mask, beta=0.0), terminal_rewards(scores, mask)
    )


def test_penalised_rewards_are_the_sums_of_the_shaped_ones():
    old, reference = (jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32) for _ in range(2))
    scores = jnp.asarray(RNG.normal(size=3), jnp.float32)
    shaped = kl_shaped_rewards(scores, old, reference, jnp.ones((3, 4), bool), beta=0.3)
    got = kl_penalized_rewards(scores, old.sum(-1), reference.sum(-1), beta=0.3)
    np.testing.assert_allclose(got, shaped.sum(-1), rtol=1e-4, atol=1e-6)


def test_the_length_penalty_is_continuous_monotone_and_between_minus_one_and_zero():
    lengths = jnp.arange(0, 30)
    got = np.asarray(overlong_shaping(jnp.zeros(30), lengths, max_length=20, cache_length=8))
    np.testing.assert_array_equal(got[:13], 0.0)
    np.testing.assert_array_equal(got[20:], -1.0)
    np.testing.assert_allclose(np.diff(got[12:21]), -1 / 8, rtol=1e-6)


def test_the_length_penalty_adds_to_the_reward():
    rewards = jnp.asarray(RNG.normal(size=4), jnp.float32)
    lengths = jnp.asarray([1, 14, 17, 99])
    shape = {"max_length": 20, "cache_length": 8}
    np.testing.assert_allclose(
        overlong_shaping(rewards, lengths, **shape), rewards + overlong_shaping(jnp.zeros(4), lengths, **shape)
    )


@pytest.mark.parametrize("limit", [np.inf, 0.5])
def test_clipped_rewards_stay_within_the_limit_and_an_infinite_one_changes_nothing(limit):
    rewards = jnp.asarray(3 * RNG.normal(size=20), jnp.float32)
    np.testing.assert_array_equal(
        clip_rewards(rewards, jnp.ones(20, bool), limit=limit), np.clip(rewards, -limit, limit)
    )


@few
@hypothesis.given(
    correct=hnp.arrays(bool, 9), groups=hnp.arrays(np.int32, 9, elements=st.integers(-1, 2)), valid=hnp.arrays(bool, 9)
)
def test_the_filter_keeps_the_groups_with_a_right_and_a_wrong_answer_and_those_have_a_spread(correct, groups, valid):
    kept = np.asarray(dynamic_sampling_filter(jnp.asarray(correct), jnp.asarray(groups), jnp.asarray(valid)))
    for group in np.unique(groups):
        members = (groups == group) & valid
        mixed = members.any() and len(set(correct[members])) == 2
        np.testing.assert_array_equal(kept[groups == group], valid[groups == group] & mixed)
    rewards = jnp.asarray(np.where(correct, 1.0, -1.0), jnp.float32)
    for estimator in (grpo_advantages, dr_grpo_advantages):
        advantages = np.asarray(estimator(rewards, jnp.asarray(groups), jnp.asarray(kept)))
        assert (advantages[kept] != 0).all() and (advantages[~kept] == 0).all()


def test_a_length_penalty_does_not_make_a_group_look_mixed():
    """The reason why the filter asks for `correct`: shaped rewards differ in every group."""
    correct, ids, valid = jnp.ones(3, bool), jnp.zeros(3, jnp.int32), jnp.ones(3, bool)
    shaped = overlong_shaping(jnp.ones(3), jnp.asarray([5, 15, 18]), max_length=20, cache_length=8)
    assert len(set(np.asarray(shaped).tolist())) == 3
    assert not dynamic_sampling_filter(correct, ids, valid).any()


def test_dapo_with_its_switches_off_is_grpo():
    """Short completions, mixed groups: neither the length penalty nor the filter has anything to say."""
    correct, ids = jnp.asarray([True, False, False, True, True, False]), jnp.asarray([0, 0, 0, 5, 5, 5])
    rewards, valid = jnp.where(correct, 1.0, -1.0), jnp.ones(6, bool)
    shaped = overlong_shaping(rewards, jnp.full(6, 100))
    kept = dynamic_sampling_filter(correct, ids, valid)
    np.testing.assert_array_equal(grpo_advantages(shaped, ids, kept), grpo_advantages(rewards, ids, valid))


# --- Text2Grad and Retroformer ----------------------------------------------------------------------------------------


def test_span_shaped_rewards_are_the_labels_beside_the_kl_shaped_reward_of_score_zero():
    rng = np.random.default_rng(5)
    labels = rng.integers(-1, 2, (4, 6)).astype(np.float32)
    behaviour, reference = rng.normal(size=(2, 4, 6)).astype(np.float32)
    mask = np.arange(6) < rng.integers(1, 7, (4, 1))
    shaped = span_shaped_rewards(labels, behaviour, reference, mask, beta=0.3)
    plain = kl_shaped_rewards(np.zeros(4, np.float32), behaviour, reference, mask, beta=0.3)
    np.testing.assert_allclose(shaped, plain + np.where(mask, labels, 0), atol=1e-6)
    no_spans = span_shaped_rewards(np.zeros_like(labels), behaviour, reference, mask, beta=0.3)
    np.testing.assert_allclose(no_spans, plain, atol=1e-6)


def test_the_sum_of_span_rewards_is_good_less_bad_tokens_less_the_kl():
    rng = np.random.default_rng(6)
    labels = rng.integers(-1, 2, (4, 6)).astype(np.float32)
    behaviour, reference = rng.normal(size=(2, 4, 6)).astype(np.float32)
    mask = np.arange(6) < rng.integers(1, 7, (4, 1))
    total = span_shaped_rewards(labels, behaviour, reference, mask, beta=0.2).sum(-1)
    kl = np.where(mask, behaviour - reference, 0).sum(-1)
    expected = ((labels > 0) & mask).sum(-1) - ((labels < 0) & mask).sum(-1) - 0.2 * kl
    np.testing.assert_allclose(total, expected, atol=1e-5)


def test_improvements_telescope_and_do_not_see_a_shift_of_all_returns():
    returns = np.random.default_rng(7).normal(size=(3, 5)).astype(np.float32)
    improvements = return_improvements(returns[:, :-1], returns[:, 1:])
    np.testing.assert_allclose(improvements.sum(-1), returns[:, -1] - returns[:, 0], atol=1e-6)
    np.testing.assert_allclose(return_improvements(returns[:, :-1] + 3, returns[:, 1:] + 3), improvements, atol=1e-5)
    np.testing.assert_array_equal(return_improvements(returns, returns), 0)
