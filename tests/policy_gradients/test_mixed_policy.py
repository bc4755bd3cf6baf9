"""HPT, LUFFY and SRFT: which branch trains, and the limits and gradients of their losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import policy_gradients as pg
from alignment.losses import reductions

T = 4
# Prompt 4: two of three rollouts right. Prompt 9: none of three. Prompt 2: both. Each with one demonstration, last.
IDS = np.array([4, 4, 4, 4, 9, 9, 9, 9, 2, 2, 2])
SHOWN = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1], bool)
CORRECT = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1], bool)
N = len(IDS)
DEMONSTRATIONS = jnp.asarray(np.broadcast_to(SHOWN[:, None], (N, T)))


def rows(gate, correct=CORRECT, valid=None):
    valid = jnp.ones(N, bool) if valid is None else jnp.asarray(valid)
    return np.asarray(pg.hpt_rows(jnp.asarray(correct), jnp.asarray(IDS), DEMONSTRATIONS, valid, gate=gate)) > 0


def batch(seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((N, T)) < 0.8
    mask[:, 0] = True
    policy = -rng.gamma(1.0, size=(N, T))
    behaviour = policy + 0.5 * rng.normal(size=(N, T))
    return jnp.asarray(policy, jnp.float32), jnp.asarray(behaviour, jnp.float32), jnp.asarray(mask)


def centred(correct=CORRECT, counted=~SHOWN):
    """Reward less the mean of the prompt's counted completions."""
    r = correct.astype(float)
    means = np.array([r[(i == IDS) & counted].mean() for i in IDS])
    return jnp.asarray(np.broadcast_to((r - means)[:, None], (N, T)), jnp.float32)


def test_a_gate_of_one_is_pure_sft_and_one_below_zero_pure_reinforcement():
    np.testing.assert_array_equal(rows(1.0), SHOWN)
    np.testing.assert_array_equal(rows(-0.5), ~SHOWN)


def test_the_gate_compares_the_share_of_correct_rollouts_alone():
    np.testing.assert_array_equal(rows(0.0), np.where(IDS == 9, SHOWN, ~SHOWN))
    np.testing.assert_array_equal(rows(0.6), np.where(IDS == 9, SHOWN, ~SHOWN))  # 2/3, not 3/4 with the demonstration
    np.testing.assert_array_equal(rows(0.7), np.where(IDS == 2, ~SHOWN, SHOWN))


@pytest.mark.parametrize("seed", range(5))
def test_at_gate_zero_sft_begins_exactly_where_reinforcement_has_nothing_to_push_up(seed):
    """All wrong: advantages 0. All correct too, but there the gate stays open and nothing trains."""
    correct = np.where(SHOWN, True, np.random.default_rng(seed).random(N) < 0.4)
    trains, advantages = rows(0.0, correct), np.asarray(centred(correct))[:, 0]
    for g in np.unique(IDS):
        own = (g == IDS) & ~SHOWN
        on_demonstration = trains[(g == IDS) & SHOWN].all()
        assert on_demonstration == (not correct[own].any())
        assert trains[own].all() == (not on_demonstration)
        if on_demonstration or correct[own].all():
            np.testing.assert_allclose(advantages[own], 0.0, atol=1e-6)


def test_rows_that_are_not_there_are_not_rollouts():
    valid = np.ones(N, bool)
    valid[[0, 2]] = False  # the correct ones of prompt 4
    np.testing.assert_array_equal(rows(0.0, valid=valid), np.where(IDS == 2, ~SHOWN, SHOWN) & valid)


def hpt_loss(policy, behaviour, mask, keep, gate_rl=1.0, gate_sft=1.0):
    """As the configuration has it: rows of the branch not taken are gone, then two terms with their reductions."""
    present = mask & jnp.asarray(keep)[:, None]
    rl = pg.hpt_rollouts(policy, behaviour, centred(), DEMONSTRATIONS & mask, mask)
    sft = pg.demonstration_nll(policy, DEMONSTRATIONS & mask)
    sft_mask = present & DEMONSTRATIONS
    return gate_rl * jnp.divide(*reductions.constant(float(T))(rl, present)) + gate_sft * reductions.token_mean.total(
        sft, sft_mask
    ) / jnp.maximum(reductions.token_mean.weight(sft_mask), 1)


def test_the_gradient_of_a_batch_is_the_sum_over_prompts_of_exactly_one_branch():
    policy, behaviour, mask = batch()
    keep = rows(0.0)
    got = np.asarray(jax.grad(hpt_loss)(policy, behaviour, mask, keep))
    m, r = np.asarray(mask), np.exp(np.asarray(policy - behaviour))
    reinforced, imitated = keep & ~SHOWN, keep & SHOWN
    expected = np.where(
        m & reinforced[:, None],
        -np.asarray(centred()) * r / (keep.sum() * T),
        np.where(m & imitated[:, None], -1 / (m & imitated[:, None]).sum(), 0.0),
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
    assert not got[~keep].any()


def test_a_batch_without_demonstrations_in_use_has_no_imitation_and_no_nan():
    policy, behaviour, mask = batch()
    value = hpt_loss(policy, behaviour, mask, rows(-0.5), gate_rl=0.0)
    assert value == 0


# --- LUFFY -----------------------------------------------------------------------------------------------------------


def luffy_gradient(gamma, seed=0):
    policy, behaviour, mask = batch(seed)
    a = centred(counted=np.ones(N, bool))
    loss = lambda x: jnp.sum(pg.luffy(x, behaviour, a, DEMONSTRATIONS, mask, gamma=gamma))  # noqa: E731
    return np.asarray(jax.grad(loss)(policy)), np.asarray(policy), np.asarray(a), np.asarray(mask) & SHOWN[:, None]


def test_luffy_for_a_large_gamma_is_the_offline_row():
    gradient, policy, a, shown = luffy_gradient(1e5)
    np.testing.assert_allclose(1e5 * gradient[shown], (-a * np.exp(policy))[shown], rtol=1e-4, atol=1e-6)


def test_luffy_for_a_small_gamma_is_constant_one_and_teaches_nothing():
    policy, behaviour, mask = batch()
    values = pg.luffy(policy, behaviour, jnp.ones((N, T)), DEMONSTRATIONS, mask, gamma=1e-8)
    shown = np.asarray(mask) & SHOWN[:, None]
    np.testing.assert_allclose(np.asarray(values)[shown], -1.0, rtol=1e-4)
    assert np.abs(luffy_gradient(1e-8)[0][shown]).max() < 1e-5


def test_luffys_demonstrations_have_the_coefficient_of_the_unified_table():
    gradient, policy, a, shown = luffy_gradient(0.1)
    p = np.exp(policy)
    np.testing.assert_allclose(gradient[shown], (-a * 0.1 * p / (p + 0.1) ** 2)[shown], rtol=1e-4)


def test_luffys_rollouts_are_weighed_by_their_ratio_without_clip():
    policy, behaviour, mask = batch()
    a = centred(counted=np.ones(N, bool))
    gradient, _, _, shown = luffy_gradient(0.1)
    own = np.asarray(mask) & ~shown
    np.testing.assert_allclose(gradient[own], np.asarray(-a * jnp.exp(policy - behaviour))[own], rtol=1e-4)


def test_a_demonstration_may_be_the_beginning_of_a_row():
    policy, behaviour, mask = (x[:1] for x in batch())
    mask = jnp.ones_like(mask)
    prefix = jnp.array([[True, True, False, False]])
    values = pg.luffy(policy, behaviour, jnp.ones((1, T)), prefix, mask)
    p, r = np.exp(np.asarray(policy)), np.exp(np.asarray(policy - behaviour))
    np.testing.assert_allclose(values, -np.where(prefix, p / (p + 0.1), r), rtol=1e-5)


# --- SRFT ------------------------------------------------------------------------------------------------------------


def test_srft_without_entropy_is_half_of_sft():
    policy, _, mask = batch()
    shown = mask & DEMONSTRATIONS
    values = pg.srft_demonstrations(policy, jnp.zeros((N, T)), shown)
    np.testing.assert_allclose(values, 0.5 * pg.demonstration_nll(policy, shown), rtol=1e-6)


def test_srft_weights_are_held_fixed_and_fall_with_the_mean_entropy_of_the_row():
    policy, _, mask = batch()
    entropies = jnp.asarray(np.random.default_rng(3).gamma(1.0, size=(N, T)), jnp.float32)
    shown = mask & DEMONSTRATIONS
    gradient, of_entropies = jax.grad(lambda x, h: jnp.sum(pg.srft_demonstrations(x, h, shown)), argnums=(0, 1))(
        policy, entropies
    )
    s = np.asarray(shown)
    h = np.where(s, entropies, 0).sum(-1, keepdims=True) / np.maximum(s.sum(-1, keepdims=True), 1)
    np.testing.assert_allclose(gradient, np.where(s, -0.5 * np.exp(-h), 0.0), rtol=1e-5)
    np.testing.assert_array_equal(of_entropies, 0)


def test_srft_reinforces_the_unsure_and_correct_more_and_demonstrations_as_luffy():
    policy, _, mask = batch()
    entropies = jnp.asarray(np.random.default_rng(3).gamma(1.0, size=(N, T)), jnp.float32)
    a, correct = centred(counted=np.ones(N, bool)), jnp.asarray(CORRECT)
    loss = lambda x: jnp.sum(pg.srft_reinforcement(x, entropies, a, correct, DEMONSTRATIONS, mask))  # noqa: E731
    gradient, m = np.asarray(jax.grad(loss)(policy)), np.asarray(mask)
    own = m & ~SHOWN[:, None]
    h = np.where(own, entropies, 0).sum(-1, keepdims=True) / np.maximum(own.sum(-1, keepdims=True), 1)
    expected = np.broadcast_to(np.where(CORRECT[:, None], -0.1 * np.exp(h), 1.0), (N, T))
    np.testing.assert_allclose(gradient[own], expected[own], rtol=1e-4)
    shown = m & SHOWN[:, None]
    np.testing.assert_allclose(gradient[shown], luffy_gradient(0.1)[0][shown], rtol=1e-5)


# --- ExPO -------------------------------------------------------------------------------------------------------------


def expo_case(rewards, explained):
    n, time = len(rewards), 3
    rng = np.random.default_rng(0)
    mask = np.ones((n, time), bool)
    shown = mask & np.asarray(explained)[:, None]
    logps = jnp.asarray(rng.normal(size=(n, time)) - 1, jnp.float32)
    return jnp.asarray(rewards, jnp.float32), jnp.zeros(n, jnp.int32), jnp.asarray(shown), jnp.asarray(mask), logps


def expo_gradient(case, beta):
    rewards, ids, shown, mask, behaviour = case
    advantages = pg.expo_advantages(rewards, ids, shown, jnp.ones(len(rewards), bool))
    sampled = pg.sampled_tokens_mask(mask, shown)

    def loss(logps):
        token_advantages = jnp.broadcast_to(advantages[:, None], logps.shape)
        ratio = pg.ppo(logps, behaviour, token_advantages, sampled)
        total, weight = reductions.sequence_mean(ratio, sampled)
        imitation, tokens = reductions.token_mean(pg.demonstration_nll(logps, shown), shown)
        return total / weight + beta * imitation / jnp.maximum(tokens, 1)

    return jax.grad(loss)(behaviour)


def test_where_all_samples_fail_expo_is_beta_times_imitation_of_the_explanation():
    case = expo_case([0.0, 0.0, 0.0, 1.0], [False, False, False, True])
    expected = np.zeros((4, 3))
    expected[3] = -0.1 / 3
    np.testing.assert_allclose(expo_gradient(case, 0.1), expected, atol=1e-7)


def test_without_its_imitation_expo_is_grpo_on_the_samples():
    case = expo_case([1.0, 0.0, 1.0, 1.0], [False, False, False, True])
    alone = expo_case([1.0, 0.0, 1.0], [False] * 3)
    got = expo_gradient(case, 0.0)
    np.testing.assert_allclose(got[:3], expo_gradient(alone, 0.0), atol=1e-6)
    np.testing.assert_array_equal(got[3], 0)
    rewards, ids, _, _, _ = alone
    plain = pg.grpo_advantages(rewards, ids, jnp.ones(3, bool))
    np.testing.assert_allclose(pg.expo_advantages(*case[:3], jnp.ones(4, bool))[:3], plain, rtol=1e-6)


def test_an_ordinary_right_completion_as_explanation_is_grpo_and_supervised_training():
    case = expo_case([1.0, 0.0, 1.0, 1.0], [False, False, False, True])
    both, reinforced = expo_gradient(case, 0.5), expo_gradient(case, 0.0)
    imitated = np.zeros((4, 3))
    imitated[3] = -0.5 / 3
    np.testing.assert_allclose(both - reinforced, imitated, atol=1e-6)
