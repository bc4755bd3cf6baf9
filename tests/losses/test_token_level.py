"""Token-level losses against their identities in the catalogue."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import (
    cpl,
    cpl_kl,
    dpo,
    ld_dpo,
    ld_dpo_logp,
    position_kl,
    simpo,
    simpo_reg,
    sparse_token_dpo,
    tdpo1,
    tdpo2,
    treg,
    treg_token_rewards,
)

B, T, V = 6, 4, 5
BETA = 0.3
RNG = np.random.default_rng(0)
PAIR = tuple(jnp.asarray(-10 + 3 * RNG.normal(size=B), jnp.float32) for _ in range(4))
SAME = (PAIR[0], PAIR[1], PAIR[0], PAIR[1])
H = (PAIR[0] - PAIR[2]) - (PAIR[1] - PAIR[3])
KLS = tuple(jnp.asarray(RNG.gamma(1.0, size=(B, T)), jnp.float32) for _ in range(2))
MASKS = tuple(jnp.asarray(RNG.random((B, T)) < 0.7).at[:, 0].set(True) for _ in range(2))
SEQ_KLS = tuple(jnp.sum(kls * mask, -1) for kls, mask in zip(KLS, MASKS, strict=True))
# Token log-probs: policy chosen, policy rejected, reference chosen, reference rejected.
TOKENS = tuple(jnp.asarray(-1.5 + 0.7 * RNG.normal(size=(B, T)), jnp.float32) for _ in range(4))
SUMS = tuple(jnp.sum(x * m, -1) for x, m in zip(TOKENS, MASKS * 2, strict=True))
RATIOS = tuple(jnp.where(m, x - y, 0) for x, y, m in zip(TOKENS[:2], TOKENS[2:], MASKS, strict=True))
REWARDS = tuple(jnp.asarray(RNG.uniform(-0.5, 0.5, (B, T)), jnp.float32) for _ in range(2))
SCORES = tuple(jnp.asarray(RNG.normal(size=(B, T)), jnp.float32) for _ in range(2))


def gradients(loss, *args, argnums):
    return jax.grad(lambda *a: jnp.sum(loss(*a)), argnums=argnums)(*args)


def close(got, want, **kwargs):
    np.testing.assert_allclose(got, want, **{"rtol": 1e-4, "atol": 1e-6, **kwargs})


# ----------------------------------------------------------------------------------------------------------- tdpo


def test_tdpo1_with_equal_sequential_kls_is_dpo():
    kls, mask = KLS[0], MASKS[0]
    np.testing.assert_allclose(tdpo1(*PAIR, kls, kls, mask, mask, beta=BETA), dpo(*PAIR, beta=BETA), rtol=1e-5)


def test_tdpo_values_agree_at_alpha_one_and_gradients_do_not():
    one = tdpo1(*PAIR, *KLS, *MASKS, beta=BETA)
    two = tdpo2(*PAIR, *KLS, *MASKS, beta=BETA, alpha=1.0)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    (through,) = gradients(lambda *a: tdpo1(*a, beta=BETA), *PAIR, *KLS, *MASKS, argnums=(4,))
    (stopped,) = gradients(lambda *a: tdpo2(*a, beta=BETA, alpha=1.0), *PAIR, *KLS, *MASKS, argnums=(4,))
    assert (np.abs(np.asarray(through)[np.asarray(MASKS[0])]) > 0).all()
    np.testing.assert_array_equal(stopped, np.zeros_like(stopped))


def test_tdpo_at_the_reference_is_log_two():
    nothing = jnp.zeros((B, T))
    np.testing.assert_allclose(tdpo1(*SAME, nothing, nothing, *MASKS), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(tdpo2(*SAME, nothing, nothing, *MASKS), np.log(2), rtol=1e-6)


def test_tdpo2_partial_derivatives_have_their_closed_form():
    alpha = 0.7
    z = BETA * H - alpha * BETA * (SEQ_KLS[1] - SEQ_KLS[0])
    chosen, rejected_kls = gradients(lambda *a: tdpo2(*a, beta=BETA, alpha=alpha), *PAIR, *KLS, *MASKS, argnums=(0, 5))
    np.testing.assert_allclose(chosen, -BETA * jax.nn.sigmoid(-z), rtol=1e-4)
    expected = np.where(MASKS[1], (alpha * BETA * jax.nn.sigmoid(-z))[:, None], 0)
    np.testing.assert_allclose(rejected_kls, expected, rtol=1e-4)


def test_tdpo_sides_may_differ_in_length():
    wide = jnp.pad(KLS[1], ((0, 0), (0, 3)), constant_values=jnp.nan)
    mask = jnp.pad(MASKS[1], ((0, 0), (0, 3)))
    for loss in (tdpo1, tdpo2):
        np.testing.assert_array_equal(loss(*PAIR, KLS[0], wide, MASKS[0], mask), loss(*PAIR, *KLS, *MASKS))


# ---------------------------------------------------------------------------------------------------- position_kl


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_position_kl_is_reference_to_policy_and_never_negative(seed, scale):
    policy, reference = scale * np.random.default_rng(seed).normal(size=(2, B, V))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (policy, reference))
    got = position_kl(jnp.asarray(policy, jnp.float32), jnp.asarray(reference, jnp.float32))
    np.testing.assert_allclose(got, (q * np.log(q / p)).sum(-1), rtol=1e-3, atol=1e-5)
    assert (got > -1e-6).all()


def test_position_kl_is_zero_for_equal_distributions_and_only_for_those():
    logits = jnp.asarray(RNG.normal(size=(B, V)), jnp.float32)
    np.testing.assert_allclose(position_kl(logits + 3, logits), 0, atol=1e-6)
    assert (position_kl(logits.at[:, 0].add(1.0), logits) > 1e-3).all()


def test_position_kl_gradient_is_policy_minus_reference():
    policy, reference = (jnp.asarray(RNG.normal(size=(B, V)), jnp.float32) for _ in range(2))
    (gradient,) = gradients(position_kl, policy, reference, argnums=(0,))
    np.testing.assert_allclose(gradient, jax.nn.softmax(policy) - jax.nn.softmax(reference), rtol=1e-4, atol=1e-6)


def test_position_kl_ignores_tokens_that_the_reference_forbids():
    """Logit -inf in the reference, and in both models (a padded vocabulary), in value and in gradient."""
    policy, reference = (jnp.asarray(RNG.normal(size=(B, V)), jnp.float32) for _ in range(2))
    forbidden = reference.at[:, 0].set(-jnp.inf)
    for p in (policy, policy.at[:, 0].set(-jnp.inf)):
        value, gradient = jax.value_and_grad(lambda x: jnp.sum(position_kl(x, forbidden)))(p)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(
        position_kl(policy.at[:, 0].set(-jnp.inf), forbidden), position_kl(policy[:, 1:], reference[:, 1:]), rtol=1e-5
    )


# ----------------------------------------------------------------------------------------------------------- treg


def regularised(alpha, rewards=REWARDS, policy=TOKENS[:2]):
    return treg(*policy, *SUMS[2:], *rewards, *MASKS, beta=BETA, alpha=alpha)


def test_treg_without_regulariser_is_dpo():
    close(regularised(0.0), dpo(*SUMS, beta=BETA))


def test_treg_with_identical_prompts_is_dpo():
    nothing = tuple(treg_token_rewards(x, x) for x in TOKENS[:2])
    np.testing.assert_array_equal(nothing[0], 0.0)
    close(regularised(0.5, nothing), dpo(*SUMS, beta=BETA))


def test_treg_token_rewards_change_sign_with_the_prompts_and_stay_within_one_half():
    better, worse = TOKENS[:2]
    rewards = treg_token_rewards(better, worse)
    close(rewards, jax.nn.sigmoid(better - worse) - 0.5)
    np.testing.assert_array_equal(rewards, -treg_token_rewards(worse, better))
    assert np.abs(treg_token_rewards(100 * better, 100 * worse)).max() <= 0.5


def test_treg_token_gradients_have_their_closed_form():
    alpha = 0.5
    h = (SUMS[0] - SUMS[2]) - (SUMS[1] - SUMS[3])
    w = jax.nn.sigmoid(-BETA * h)[:, None]
    chosen, rejected = gradients(lambda *p: regularised(alpha, policy=p), *TOKENS[:2], argnums=(0, 1))
    close(chosen, jnp.where(MASKS[0], -BETA * w * (1 + alpha * REWARDS[0]), 0))
    close(rejected, jnp.where(MASKS[1], BETA * w * (1 - alpha * REWARDS[1]), 0))


@pytest.mark.parametrize("alpha", [0.1, 1.0, 1.99])
def test_treg_only_reweights_the_token_gradients_of_dpo(alpha):
    extreme = tuple(0.5 * jnp.sign(r) for r in REWARDS)
    got = gradients(lambda *p: regularised(alpha, extreme, p), *TOKENS[:2], argnums=(0, 1))
    plain = gradients(lambda *p: regularised(0.0, policy=p), *TOKENS[:2], argnums=(0, 1))
    for new, old, mask in zip(got, plain, MASKS, strict=True):
        factor = np.asarray(new / old)[np.asarray(mask)]
        assert (factor >= 1 - alpha / 2 - 1e-5).all() and (factor <= 1 + alpha / 2 + 1e-5).all()
        assert factor.min() > 0


def test_simpo_reg_without_regulariser_is_simpo():
    lengths = [m.sum(-1) for m in MASKS]
    got = simpo_reg(*TOKENS[:2], *REWARDS, *MASKS, beta=2.0, gamma=0.5, alpha=0.0)
    close(got, simpo(*SUMS[:2], *lengths, beta=2.0, gamma=0.5))


def test_simpo_reg_adds_the_token_rewards_under_simpos_own_weight():
    lengths = [m.sum(-1) for m in MASKS]
    margin = 2.0 * (SUMS[0] / lengths[0] - SUMS[1] / lengths[1]) - 0.5
    got = gradients(
        lambda *p: simpo_reg(*p, *REWARDS, *MASKS, beta=2.0, gamma=0.5, alpha=0.5), *TOKENS[:2], argnums=(0, 1)
    )
    w = jax.nn.sigmoid(-margin)[:, None]
    for side, sign in ((0, -1.0), (1, 1.0)):
        own = sign / lengths[side][:, None]
        close(got[side], jnp.where(MASKS[side], 2.0 * w * (own - 0.5 * REWARDS[side]), 0))


# ----------------------------------------------------------------------------------------------- sparse_token_dpo


def gated(scores, sparsity=0.0, tokens=TOKENS, masks=MASKS):
    return sparse_token_dpo(*tokens, *scores, *masks, beta=BETA, sparsity=sparsity)


def test_sparse_token_dpo_with_open_gates_is_dpo():
    wide_open = (jnp.full((B, T), 40.0),) * 2
    close(gated(wide_open), dpo(*SUMS, beta=BETA))


def test_sparse_token_dpo_with_closed_gates_is_log_two_whatever_the_price():
    shut = (jnp.full((B, T), -40.0),) * 2
    for sparsity in (0.0, 1e6):
        close(gated(shut, sparsity), np.log(2))


def test_sparse_token_dpo_closes_every_gate_as_the_price_grows():
    """The price alone decides the slope of a score then: sparsity * u (1 - u), always upward."""
    slopes = gradients(lambda *s: gated(s, 1e4), *SCORES, argnums=(0, 1))
    for slope, score, mask in zip(slopes, SCORES, MASKS, strict=True):
        u = jax.nn.sigmoid(score)
        close(slope, jnp.where(mask, 1e4 * u * (1 - u), 0), rtol=1e-3)


def test_sparse_token_dpo_gates_off_a_common_prefix_without_changing_the_margin_but_with_less_shared_gradient():
    """Two tokens in common: both sides then have the same log-probs there."""
    policy, reference = TOKENS[:2], TOKENS[2:]
    common = tuple(jnp.asarray(y).at[:, :2].set(x[:, :2]) for x, y in ((policy[0], policy[1]), reference))
    tokens = (policy[0], common[0], reference[0], common[1])
    full = (jnp.ones((B, T), bool),) * 2
    differs = jnp.arange(T) >= 2
    gates = (jnp.broadcast_to(jnp.where(differs, 40.0, -40.0), (B, T)),) * 2
    opened = (jnp.full((B, T), 40.0),) * 2
    close(gated(gates, tokens=tokens, masks=full), gated(opened, tokens=tokens, masks=full))

    def entanglement(gates):
        """Inner product of the two sides' gradients with respect to the log-probs that they have in common."""
        sides = gradients(
            lambda c, r: gated(gates, tokens=(c, r, *tokens[2:]), masks=full), *tokens[:2], argnums=(0, 1)
        )
        return np.abs(np.where(differs, 0.0, sides[0] * sides[1])).sum()

    assert entanglement(gates) < 1e-9 < 1e-4 < entanglement(opened)


# ------------------------------------------------------------------------------------------------------------ cpl


def test_cpl_kl_without_bias_and_discount_is_dpo():
    close(cpl_kl(*TOKENS, *MASKS, alpha=BETA, contrastive_bias=1.0), dpo(*SUMS, beta=BETA))


def test_cpl_is_cpl_kl_with_a_reference_of_probability_one():
    nothing = (jnp.zeros((B, T)),) * 2
    hyper = {"alpha": 0.4, "contrastive_bias": 0.6, "gamma": 0.9, "label_smoothing": 0.1}
    close(cpl(*TOKENS[:2], *MASKS, **hyper), cpl_kl(*TOKENS[:2], *nothing, *MASKS, **hyper))


def test_cpl_without_bias_ignores_a_shift_of_both_segments_and_with_bias_prefers_likely_ones():
    first = jnp.zeros((B, T)).at[:, 0].set(1.0)  # the first token is in every completion
    lower = tuple(x - 2 * first for x in TOKENS[:2])
    free = {"alpha": BETA, "contrastive_bias": 1.0}
    close(cpl(*lower, *MASKS, **free), cpl(*TOKENS[:2], *MASKS, **free))
    biased = {"alpha": BETA, "contrastive_bias": 0.5}
    assert (cpl(*lower, *MASKS, **biased) > cpl(*TOKENS[:2], *MASKS, **biased)).all()


def test_cpl_of_equal_segments_without_bias_is_log_two():
    close(cpl(TOKENS[0], TOKENS[0], MASKS[0], MASKS[0], contrastive_bias=1.0), np.log(2))


def test_cpl_gradient_weights_have_their_closed_form():
    alpha, bias, gamma = 0.4, 0.6, 0.8
    place = tuple(np.maximum(np.cumsum(m, -1) - 1, 0) for m in MASKS)
    weight = tuple(np.where(m, alpha * gamma**p, 0) for m, p in zip(MASKS, place, strict=True))
    chosen, rejected = (np.sum(w * x, -1) for w, x in zip(weight, TOKENS[:2], strict=True))
    s = np.asarray(jax.nn.sigmoid(bias * rejected - chosen))[:, None]
    got = gradients(
        lambda *p: cpl(*p, *MASKS, alpha=alpha, contrastive_bias=bias, gamma=gamma), *TOKENS[:2], argnums=(0, 1)
    )
    close(got[0], -s * weight[0])
    close(got[1], bias * s * weight[1])


def test_cpl_soft_labels_mix_the_two_orders_pair_by_pair():
    y = jnp.linspace(0, 1, B)
    hyper = {"alpha": 0.4, "contrastive_bias": 0.6}
    swapped = cpl(*TOKENS[1::-1], *MASKS[::-1], **hyper)
    mixed = (1 - y) * cpl(*TOKENS[:2], *MASKS, **hyper) + y * swapped
    close(cpl(*TOKENS[:2], *MASKS, **hyper, label_smoothing=y), mixed)


def test_cpl_discount_counts_places_of_the_completion_not_of_the_array():
    """Moved to the right behind padding, a completion keeps its discounts."""
    moved = tuple(jnp.pad(x, ((0, 0), (3, 0)), constant_values=jnp.nan) for x in TOKENS[:2])
    masks = tuple(jnp.pad(m, ((0, 0), (3, 0))) for m in MASKS)
    close(cpl(*moved, *masks, gamma=0.5), cpl(*TOKENS[:2], *MASKS, gamma=0.5))


# --------------------------------------------------------------------------------------------------------- ld_dpo


def test_ld_dpo_that_counts_every_token_in_full_is_dpo():
    close(ld_dpo(*TOKENS, *MASKS, beta=BETA, alpha=1.0), dpo(*SUMS, beta=BETA))


def test_ld_dpo_of_equal_lengths_is_dpo():
    mask = MASKS[0]
    sums = tuple(jnp.sum(x * mask, -1) for x in TOKENS)
    close(ld_dpo(*TOKENS, mask, mask, beta=BETA, alpha=0.3), dpo(*sums, beta=BETA))


def test_ld_dpo_at_alpha_zero_cuts_both_to_the_shorter_length():
    lengths = np.minimum(*(np.sum(m, -1) for m in MASKS))
    cut = tuple(m & (np.cumsum(m, -1) <= lengths[:, None]) for m in MASKS)
    assert any((c != m).any() for c, m in zip(cut, MASKS, strict=True))
    sums = tuple(jnp.sum(x * m, -1) for x, m in zip(TOKENS, cut * 2, strict=True))
    close(ld_dpo(*TOKENS, *MASKS, beta=BETA, alpha=0.0), dpo(*sums, beta=BETA))


def test_ld_dpo_is_dpo_on_the_desensitised_log_probs():
    shorter = jnp.minimum(*(jnp.sum(m, -1) for m in MASKS))
    logps = tuple(ld_dpo_logp(x, m, shorter, alpha=0.4) for x, m in zip(TOKENS, MASKS * 2, strict=True))
    close(ld_dpo(*TOKENS, *MASKS, beta=BETA, alpha=0.4), dpo(*logps, beta=BETA))


def test_ld_dpo_logp_is_linear_in_alpha_between_the_cut_and_the_whole():
    shorter = jnp.full(B, 1)
    cut, whole = (ld_dpo_logp(TOKENS[0], MASKS[0], shorter, alpha=a) for a in (0.0, 1.0))
    close(cut, TOKENS[0][:, 0])
    close(whole, SUMS[0])
    close(ld_dpo_logp(TOKENS[0], MASKS[0], shorter, alpha=0.3), 0.7 * cut + 0.3 * whole)


@pytest.mark.parametrize(
    "loss",
    [
        lambda t, m: cpl(*t[:2], *m),
        lambda t, m: cpl_kl(*t, *m),
        lambda t, m: ld_dpo(*t, *m),
        lambda t, m: sparse_token_dpo(*t, *t[:2], *m),
        lambda t, m: treg(*t[:2], *SUMS[2:], *t[2:], *m),
    ],
    ids=["cpl", "cpl_kl", "ld_dpo", "sparse_token_dpo", "treg"],
)
def test_the_sides_of_a_pair_may_be_padded_to_different_lengths(loss):
    def wide(x, fill):
        return jnp.pad(x, ((0, 0), (0, 3)), constant_values=fill)

    tokens = (TOKENS[0], wide(TOKENS[1], jnp.nan), TOKENS[2], wide(TOKENS[3], jnp.nan))
    np.testing.assert_allclose(loss(tokens, (MASKS[0], wide(MASKS[1], False))), loss(TOKENS, MASKS), rtol=1e-6)
