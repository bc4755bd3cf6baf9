"""P3O, CoPG, PRDP and PRO against their identities in the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses
from alignment.policy_gradients import copg, copg_squared, p3o_joint, p3o_separate, prdp, pro, rdp

N, BETA = 16, 0.3
RNG = np.random.default_rng(0)
BOTH = jnp.ones((N, 2, 1), bool)
OLD, REFERENCE = (jnp.asarray(-10 + 3 * RNG.normal(size=(N, 2)), jnp.float32) for _ in range(2))
POLICY = OLD + jnp.asarray(0.5 * RNG.normal(size=(N, 2)), jnp.float32)
REWARDS = jnp.asarray(RNG.normal(size=(N, 2)), jnp.float32)
SHIFT = jnp.asarray(5 * RNG.normal(size=(N, 1)), jnp.float32)

P3O = {"separate": p3o_separate, "joint": p3o_joint}
WIDE = {"separate": {"eps": 1e6}, "joint": {"eps": 1e6, "eps_difference": 1e6}}
each_p3o = pytest.mark.parametrize("variant", P3O)
# Every loss here as a function of (policy, rewards) alone.
OF_REWARDS = {
    "p3o_separate": lambda p, r: p3o_separate(p, OLD, REFERENCE, r, BOTH),
    "p3o_joint": lambda p, r: p3o_joint(p, OLD, REFERENCE, r, BOTH),
    "copg": lambda p, r: copg(p, REFERENCE, r, BOTH),
    "copg_squared": lambda p, r: copg_squared(p, REFERENCE, r, BOTH),
    "rdp": lambda p, r: rdp(p, REFERENCE, r, BOTH, beta=BETA),
    "prdp": lambda p, r: prdp(p[..., None], OLD[..., None], REFERENCE[..., None], r, BOTH, beta=BETA),
    "pro": lambda p, r: pro(p, r, BOTH),
}


def slopes(loss, policy, *args, **hyper):
    return jax.grad(lambda p: jnp.sum(loss(p, *args, **hyper)))(policy)


def gap(rewards):
    return rewards[:, 0] - rewards[:, 1]


def opposite(first):
    return jnp.stack([first, -first], -1)


@pytest.mark.parametrize("name", OF_REWARDS)
def test_a_reward_that_depends_on_the_prompt_alone_changes_nothing(name):
    loss = OF_REWARDS[name]
    np.testing.assert_allclose(loss(POLICY, REWARDS + SHIFT), loss(POLICY, REWARDS), rtol=1e-3, atol=1e-4)
    got, expected = slopes(loss, POLICY, REWARDS + SHIFT), slopes(loss, POLICY, REWARDS)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", [name for name in OF_REWARDS if name not in ("pro", "p3o_separate", "p3o_joint", "prdp")]
)
def test_swapping_the_two_responses_changes_nothing(name):
    kernel = {"copg": copg, "copg_squared": copg_squared, "rdp": rdp}[name]
    whole = kernel(POLICY, REFERENCE, REWARDS, BOTH)
    np.testing.assert_allclose(kernel(POLICY[:, ::-1], REFERENCE[:, ::-1], REWARDS[:, ::-1], BOTH), whole, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ P3O


def shaped(beta):
    return REWARDS - beta * (OLD - REFERENCE)


@each_p3o
def test_p3o_at_the_old_policy_has_half_the_reward_difference_as_gradient(variant):
    got = slopes(P3O[variant], OLD, OLD, REFERENCE, REWARDS, BOTH, beta=BETA)
    np.testing.assert_allclose(got, opposite(-gap(shaped(BETA)) / 2), rtol=1e-4)


@each_p3o
def test_p3o_without_clips_has_the_importance_weighted_pairwise_gradient(variant):
    got = slopes(P3O[variant], POLICY, OLD, REFERENCE, REWARDS, BOTH, beta=BETA, **WIDE[variant])
    weight = jnp.exp(jnp.sum(POLICY - OLD, -1))
    np.testing.assert_allclose(got, opposite(-gap(shaped(BETA)) * weight / 2), rtol=1e-4)


@each_p3o
def test_p3o_does_not_know_the_order_of_the_two(variant):
    flipped = (x[:, ::-1] for x in (POLICY, OLD, REFERENCE, REWARDS))
    expected = P3O[variant](POLICY, OLD, REFERENCE, REWARDS, BOTH)
    np.testing.assert_allclose(P3O[variant](*flipped, BOTH), expected, rtol=1e-5)


def test_p3o_clips_take_the_gradient_of_a_ratio_that_has_moved_far_the_way_it_should():
    policy = OLD + jnp.array([1.0, -1.0])  # the better one up, the worse one down, beyond both clips
    rewards = jnp.tile(jnp.array([1.0, 0.0]), (N, 1))
    for kernel in P3O.values():
        np.testing.assert_array_equal(slopes(kernel, policy, OLD, REFERENCE, rewards, BOTH, beta=0.0), 0)
        assert np.abs(slopes(kernel, policy, OLD, REFERENCE, -rewards, BOTH, beta=0.0)).min() > 0


def policy_gradient(logits, rewards, weights=None):
    """Of E_pi[R], exactly; with `weights` the responses are drawn from those instead."""
    pi = jax.nn.softmax(logits)
    return pi * (rewards - jnp.sum(pi * rewards)) if weights is None else weights


def expected_over_pairs(loss, logits, sampler):
    """Gradient of E over y1, y2 ~ sampler (independent) of a loss of two log-probs, with respect to the logits."""
    size = logits.shape[0]
    first, second = (i.ravel() for i in jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij"))
    pairs = jnp.stack([first, second], -1)

    def total(logits):
        values = loss(jax.nn.log_softmax(logits)[pairs], pairs)
        return jnp.sum(sampler[first] * sampler[second] * values)

    return jax.grad(total)(logits)


ARMS = 5
LOGITS, ARM_REWARDS = (jnp.asarray(x, jnp.float32) for x in RNG.normal(size=(2, ARMS)))
ARM_REFERENCE = jax.nn.log_softmax(jnp.asarray(RNG.normal(size=ARMS), jnp.float32))
ARM_PAIRS = jnp.ones((ARMS * ARMS, 2, 1), bool)


@each_p3o
def test_p3o_on_policy_is_in_expectation_the_policy_gradient_as_rloo_with_two(variant):
    old = jax.nn.log_softmax(LOGITS)

    def loss(policy, pairs):
        return P3O[variant](policy, old[pairs], old[pairs], ARM_REWARDS[pairs], ARM_PAIRS, beta=0.0)

    def rloo(policy, pairs):
        r = ARM_REWARDS[pairs]
        return -jnp.mean((r - r[:, ::-1]) * policy, -1)

    got = expected_over_pairs(loss, LOGITS, jnp.exp(old))
    np.testing.assert_allclose(got, -policy_gradient(LOGITS, ARM_REWARDS), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(got, expected_over_pairs(rloo, LOGITS, jnp.exp(old)), rtol=1e-3, atol=1e-6)


# ----------------------------------------------------------------------------------------------------- CoPG, PRDP


def optimum(beta):
    return ARM_REFERENCE + ARM_REWARDS / beta  # logits of ref * exp(R / beta)


@pytest.mark.parametrize("kernel", [copg, copg_squared, rdp])
def test_the_optimum_of_kl_regularised_reward_is_stationary_for_every_pair(kernel):
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(ARMS), jnp.arange(ARMS)), -1).reshape(-1, 2)
    policy = jax.nn.log_softmax(optimum(BETA))[pairs]
    got = slopes(kernel, policy, ARM_REFERENCE[pairs], ARM_REWARDS[pairs], ARM_PAIRS, beta=BETA)
    np.testing.assert_allclose(got, 0, atol=1e-4)
    if kernel is not copg:
        np.testing.assert_allclose(kernel(policy, ARM_REFERENCE[pairs], ARM_REWARDS[pairs], ARM_PAIRS, beta=BETA), 0,
                                   atol=1e-8)  # fmt: skip


def test_copg_reaches_the_optimum_from_a_skewed_sampler_where_a_plain_baseline_does_not():
    """The toy of the paper: three arms, data from a fixed sampler that likes the worst, exact expectations."""
    rewards, sampler, beta = jnp.array([2.5, 2.0, 1.0]), jnp.array([0.1, 0.2, 0.7]), 0.5
    reference = jnp.log(jnp.ones(3) / 3)
    every = jnp.ones((9, 2, 1), bool)

    def contrastive(policy, pairs):
        return copg(policy, reference[pairs], rewards[pairs], every, beta=beta)

    def with_reward_baseline(policy, pairs):
        regularised = rewards[pairs] - beta * (policy - reference[pairs])
        return -jnp.sum(jax.lax.stop_gradient(regularised - sampler @ rewards) * policy, -1) / 2

    def train(loss):
        step = lambda logits, _: (logits - 1.0 * expected_over_pairs(loss, logits, sampler), None)  # noqa: E731
        return jax.nn.softmax(jax.lax.scan(step, jnp.zeros(3), None, 3000)[0])

    best = jax.nn.softmax(rewards / beta)
    np.testing.assert_allclose(best, [0.705, 0.259, 0.035], atol=1e-3)
    np.testing.assert_allclose(train(contrastive), best, atol=1e-3)
    np.testing.assert_allclose(train(with_reward_baseline), [0.42, 0.43, 0.15], atol=0.01)


def test_copg_is_the_off_policy_gradient_with_the_samplers_mean_regularised_reward_as_baseline():
    sampler = jax.nn.softmax(jnp.asarray(RNG.normal(size=ARMS), jnp.float32))
    regularised = ARM_REWARDS - BETA * (jax.nn.log_softmax(LOGITS) - ARM_REFERENCE)
    baseline = sampler @ regularised

    def loss(policy, pairs):
        return copg(policy, ARM_REFERENCE[pairs], ARM_REWARDS[pairs], ARM_PAIRS, beta=BETA)

    expected = jax.grad(lambda z: -2 * jnp.sum(sampler * (regularised - baseline) * jax.nn.log_softmax(z)))(LOGITS)
    np.testing.assert_allclose(expected_over_pairs(loss, LOGITS, sampler), expected, rtol=1e-3, atol=1e-5)


def test_copg_on_policy_with_the_kl_in_the_reward_is_twice_rloo_with_two_samples():
    policy = jax.nn.log_softmax(LOGITS)
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(ARMS), jnp.arange(ARMS)), -1).reshape(-1, 2)
    rewards = (ARM_REWARDS - BETA * (policy - ARM_REFERENCE))[pairs]
    got = slopes(copg, policy[pairs], ARM_REFERENCE[pairs], ARM_REWARDS[pairs], ARM_PAIRS, beta=BETA)
    rloo = -(rewards - rewards[:, ::-1]) / 2  # d/dlogp of the mean over the two of -(R_i - R_j) log pi_i
    np.testing.assert_allclose(got, 2 * rloo, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [2, 4])
def test_squared_form_has_two_beta_times_the_gradient_of_the_surrogate(size):
    policy, reference, rewards = (jnp.asarray(RNG.normal(size=(N, size)), jnp.float32) for _ in range(3))
    mask = jnp.ones((N, size, 1), bool)
    got = slopes(copg_squared, policy, reference, rewards, mask, beta=BETA)
    np.testing.assert_allclose(got, 2 * BETA * slopes(copg, policy, reference, rewards, mask, beta=BETA), rtol=1e-3,
                               atol=1e-5)  # fmt: skip


def test_squared_form_of_k_responses_is_the_sum_over_pairs_over_k_less_one():
    policy, reference, rewards = (jnp.asarray(RNG.normal(size=(N, 4)), jnp.float32) for _ in range(3))
    regularised = np.asarray(rewards - BETA * (policy - reference))
    expected = sum((regularised[:, i] - regularised[:, j]) ** 2 for i in range(4) for j in range(i)) / 3
    got = copg_squared(policy, reference, rewards, jnp.ones((N, 4, 1), bool), beta=BETA)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_squared_form_with_rewards_half_apart_is_beta_squared_times_ipo():
    rewards = jnp.tile(jnp.array([0.5, 0.0]), (N, 1))
    ipo = losses.ipo(POLICY[:, 0], POLICY[:, 1], REFERENCE[:, 0], REFERENCE[:, 1], tau=BETA)
    got = copg_squared(POLICY, REFERENCE, rewards, BOTH, beta=BETA)
    np.testing.assert_allclose(got, BETA**2 * ipo, rtol=1e-4)


def test_rdp_is_the_squared_form_over_beta_squared():
    expected = copg_squared(POLICY, REFERENCE, REWARDS, BOTH, beta=BETA) / BETA**2
    np.testing.assert_allclose(rdp(POLICY, REFERENCE, REWARDS, BOTH, beta=BETA), expected, rtol=1e-4)


def steps(seed, size=3, length=4):
    rng = np.random.default_rng(seed)
    old, reference, move = (jnp.asarray(rng.normal(size=(N, size, length)), jnp.float32) for _ in range(3))
    mask = jnp.asarray(rng.random((N, size, length)) < 0.8).at[..., 0].set(True)
    return old, reference, move, jnp.asarray(rng.normal(size=(N, size)), jnp.float32), mask


@pytest.mark.parametrize("seed", range(3))
def test_prdp_is_never_below_rdp_and_equal_to_it_at_the_snapshot(seed):
    old, reference, move, rewards, mask = steps(seed)

    def plain(tokens):
        sums = (jnp.sum(jnp.where(mask, x, 0), -1) for x in (tokens, reference))
        return rdp(*sums, rewards, mask, beta=BETA)

    def proximal(tokens):
        return prdp(tokens, old, reference, rewards, mask, beta=BETA, eps=0.2)

    assert np.all(proximal(old + move) >= plain(old + move) * (1 - 1e-6))
    assert np.any(proximal(old + move) > plain(old + move) + 0.1)
    np.testing.assert_allclose(proximal(old), plain(old), rtol=1e-5)
    np.testing.assert_allclose(slopes(proximal, old), slopes(plain, old), rtol=1e-4, atol=1e-4)


def test_prdp_gives_a_clipped_step_no_gradient_where_the_clipped_branch_is_larger():
    mask = jnp.ones((1, 2, 2), bool)
    old = reference = jnp.zeros((1, 2, 2))
    policy = old.at[0, 0].set(jnp.array([1.0, 0.05]))  # the first step beyond the clip, towards a target further on
    args = (old, reference, jnp.array([[1.0, 0.0]]), mask)
    got = slopes(prdp, policy, *args, beta=0.2, eps=0.1)
    assert got[0, 0, 0] == 0 and got[0, 0, 1] < 0 and np.all(got[0, 1] > 0)


# ------------------------------------------------------------------------------------------------------------ PRO


def lengths_mask(*lengths):
    return jnp.arange(5) < jnp.asarray(lengths)[:, None]


def test_pro_of_two_is_logistic_in_the_reward_difference_times_the_difference_of_mean_log_probs():
    policy, labels, mask = jnp.array([[-3.0, -8.0]]), jnp.array([[1.7, 0.4]]), lengths_mask(2, 4)[None]
    expected = -jax.nn.log_sigmoid((1.7 - 0.4) * (-3.0 / 2 + 8.0 / 4))
    np.testing.assert_allclose(pro(policy, labels, mask, sft_weight=0.0), [expected], rtol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_pro_of_equal_rewards_is_a_constant_without_a_gradient(size):
    policy, labels = jnp.asarray(RNG.normal(size=(N, size)), jnp.float32), jnp.full((N, size), 0.7)
    mask = jnp.ones((N, size, 2), bool)
    expected = sum(np.log(1 + behind) for behind in range(1, size))
    np.testing.assert_allclose(pro(policy, labels, mask, sft_weight=0.0), expected, rtol=1e-5)
    np.testing.assert_allclose(slopes(pro, policy, labels, mask, sft_weight=0.0), 0, atol=1e-7)


def test_pro_against_a_loop_over_the_list():
    size, weight = 4, 0.3
    policy = RNG.normal(-6, 2, size=size)
    labels = np.sort(RNG.normal(size=size))[::-1]
    mask = lengths_mask(1, 2, 3, 4)
    scores, total = policy / np.arange(1, 5), 0.0
    for k in range(size - 1):
        gaps = labels[k] - labels[k + 1 :]
        own = gaps.max() * scores[k]
        total += np.log(np.exp(own) + np.exp(gaps * scores[k + 1 :]).sum()) - own
    total -= weight * (size - 1) ** 2 * scores[0]
    got = pro(*(jnp.asarray(x[None], jnp.float32) for x in (policy, labels)), mask[None], sft_weight=weight)
    np.testing.assert_allclose(got, [total], rtol=1e-5)


def test_a_response_that_is_not_there_leaves_the_list_of_the_others():
    policy, reference, rewards = (jnp.asarray(-np.sort(RNG.normal(size=(N, 4))), jnp.float32) for _ in range(3))
    mask = jnp.ones((N, 4, 2), bool).at[:, 2].set(False)
    kept = jnp.array([0, 1, 3])
    args = (policy, reference, rewards)
    for kernel in (copg, copg_squared, rdp):
        np.testing.assert_allclose(kernel(*args, mask), kernel(*(x[:, kept] for x in args), mask[:, kept]), rtol=1e-5)
    part = pro(policy[:, kept], rewards[:, kept], mask[:, kept])
    np.testing.assert_allclose(pro(policy, rewards, mask), part, rtol=1e-5)
