"""The algebra of guided decoding against what the papers claim of it, on small vocabularies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.decoding import combinations as c

V = 7


def logits(seed, *shape):
    return np.random.default_rng(seed).normal(scale=2, size=(*shape, V)).astype(np.float32)


def p(z):
    return np.asarray(jax.nn.softmax(jnp.asarray(z), axis=-1), np.float64)


def same_law(a, b, atol=2e-6):
    np.testing.assert_allclose(p(a), p(b), atol=atol)


BASE, GUIDE, OTHER = logits(0, 3), logits(1, 3), logits(2, 3)


def stacked(*guides):
    return jnp.stack([jnp.asarray(g) for g in guides], axis=-2)


# --- GenARM


def test_genarm_by_hand():
    base, arm = np.log([0.5, 0.3, 0.2]), np.log([[0.1, 0.6, 0.3]])
    expected = np.array([0.5 * 0.01, 0.3 * 0.36, 0.2 * 0.09])
    got = c.genarm(np.float32(base), np.float32(arm), alphas=(2.0,))
    np.testing.assert_allclose(p(got), expected / expected.sum(), atol=1e-6)


def test_genarm_without_weight_is_the_base_and_a_uniform_guide_changes_nothing():
    same_law(c.genarm(BASE, stacked(GUIDE), alphas=(0.0,)), BASE)
    same_law(c.genarm(BASE, stacked(np.full_like(BASE, 3.0)), alphas=(2.5,)), BASE)


@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
def test_a_guide_shaped_for_it_makes_any_next_token_target_exactly(beta):
    """log pi_r = beta (log q - log pi_base) + c(s) for any q: the expressiveness claim."""
    target = logits(5, 3)
    shift = np.arange(3, dtype=np.float32)[:, None]
    arm = beta * (np.log(p(target)) - np.log(p(BASE))) + shift
    same_law(c.genarm(BASE, stacked(arm.astype(np.float32)), alphas=(1 / beta,)), target, 1e-5)


def test_weights_of_equal_guides_add_up_and_those_of_rows_may_differ():
    twice = c.genarm(BASE, stacked(GUIDE, GUIDE), alphas=(0.3, 0.9))
    same_law(twice, c.genarm(BASE, stacked(GUIDE), alphas=(1.2,)))
    rows = jnp.array([[0.0, 1.0], [2.0, 0.5], [0.25, 0.25]])
    each = c.genarm(BASE, stacked(GUIDE, OTHER), alphas=rows)
    for i in range(3):
        same_law(each[i], c.genarm(BASE[i], stacked(GUIDE[i], OTHER[i]), alphas=tuple(rows[i].tolist())))


def test_genarm_does_not_see_shifts_of_logits():
    shifts = np.array([[100.0], [-5.0], [3.0]], np.float32)
    moved = c.genarm(BASE + shifts, stacked(GUIDE - shifts), alphas=(1.5,))
    same_law(moved, c.genarm(BASE, stacked(GUIDE), alphas=(1.5,)), 1e-5)


# --- RLG / DeRa


def test_rlg_goes_from_the_base_through_the_tuned_model_and_beyond():
    same_law(c.rlg(BASE, GUIDE, scale=0.0), BASE)
    same_law(c.rlg(BASE, GUIDE, scale=1.0), GUIDE)
    same_law(c.rlg(BASE, GUIDE, scale=2.0), GUIDE + (GUIDE - BASE), 1e-5)
    same_law(c.rlg(BASE, GUIDE, scale=0.5), np.log(np.sqrt(p(BASE) * p(GUIDE))).astype(np.float32), 1e-5)


@pytest.mark.parametrize("scale", [0.25, 1.0, 2.0])
def test_on_one_token_rlg_is_the_regularised_optimum_of_another_coefficient(scale):
    rewards, beta = np.random.default_rng(3).normal(size=V).astype(np.float32), 0.7
    tuned = BASE[0] + rewards / beta
    same_law(c.rlg(BASE[0], tuned, scale=scale), BASE[0] + rewards / (beta / scale), 1e-5)


def test_scales_multiply():
    once = c.rlg(BASE, GUIDE, scale=1.5)
    same_law(c.rlg(BASE, once, scale=0.6), c.rlg(BASE, GUIDE, scale=0.9), 1e-5)


def test_over_two_tokens_the_product_of_mixtures_is_not_the_mixture_of_sequences():
    base, tuned = p(logits(7, V + 1)), p(logits(8, V + 1))  # the first token, then the second after each
    w = 0.5
    sequence = lambda f: f[0][:, None] * f[1:]  # noqa: E731
    mixed = sequence(base) ** (1 - w) * sequence(tuned) ** w
    by_token = p(c.rlg(np.log(base).astype(np.float32), np.log(tuned).astype(np.float32), scale=w))
    assert np.abs(mixed / mixed.sum() - sequence(by_token)).max() > 1e-3


# --- contrastive decoding


def test_a_model_against_itself_scores_nothing_among_what_it_finds_plausible():
    got = np.asarray(c.contrastive(BASE, BASE, alpha=0.1))
    kept = p(BASE) >= 0.1 * p(BASE).max(-1, keepdims=True)
    np.testing.assert_array_equal(np.isfinite(got), kept)
    np.testing.assert_allclose(got[kept], 0.0, atol=1e-6)


def test_without_strength_it_is_the_expert_on_the_plausible_tokens():
    got = c.contrastive(BASE, GUIDE, alpha=0.2, strength=0.0)
    same_law(got, np.where(p(BASE) >= 0.2 * p(BASE).max(-1, keepdims=True), BASE, -np.inf))


def test_alpha_one_keeps_the_likeliest_and_exact_ties():
    z = np.array([2.0, 1.0, 2.0, -3.0], np.float32)
    np.testing.assert_array_equal(np.isfinite(c.contrastive(z, np.zeros(4, np.float32), alpha=1.0)), [1, 0, 1, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_without_a_mask_it_is_the_difference_of_log_probs(temperature):
    got = c.contrastive(BASE, GUIDE, alpha=0.0, strength=0.75, amateur_temperature=temperature)
    same_law(got, c.uld(BASE, GUIDE / temperature, alpha=0.75), 1e-5)
    by_hand = np.log(p(BASE)) - 0.75 * np.log(p(GUIDE / temperature))
    np.testing.assert_allclose(got, by_hand, atol=1e-4)


# --- ULD


def test_uld_limits():
    same_law(c.uld(BASE, GUIDE, alpha=0.0), BASE)
    same_law(c.uld(BASE, np.full_like(BASE, 4.0), alpha=0.8), BASE)
    same_law(c.uld(BASE, BASE, alpha=1.0), np.zeros_like(BASE))
    same_law(c.uld(BASE, GUIDE + 9.0, alpha=0.8), c.uld(BASE, GUIDE, alpha=0.8), 1e-5)


def test_the_filter_of_uld_by_hand_and_that_it_sees_a_shift_of_the_assistant():
    z = np.log(np.array([0.6, 0.3, 0.06, 0.04])).astype(np.float32)
    a = np.array([1.0, 2.0, 3.0, -1.0], np.float32)
    # eps 0.3: log 0.6 + log 0.3 = log 0.18; k = int(0.3 * 4) = 1, log 0.6: the lower is 0.18, which 0.6 and 0.3 pass.
    np.testing.assert_allclose(c.uld_filtered(z, a, alpha=0.5, eps=0.3), z - 0.5 * np.array([1, 2, 0, 0]), atol=1e-6)
    # eps 0.6: log 0.36; k = 2, log 0.3: two are kept at least.
    np.testing.assert_allclose(c.uld_filtered(z, a, alpha=0.5, eps=0.6), z - 0.5 * np.array([1, 2, 0, 0]), atol=1e-6)
    shifted = p(c.uld_filtered(z, a + 2, alpha=0.5, eps=0.3))
    assert np.abs(shifted - p(c.uld_filtered(z, a, alpha=0.5, eps=0.3))).max() > 0.05
    assert c.uld_filtered(z, a, eps=0.01).shape == (4,)  # k = int(0.04) = 0 counts as 1


def test_the_uniform_term_is_a_divergence_with_the_gradient_p_minus_uniform():
    np.testing.assert_allclose(c.uld_uniform_term(np.full((2, V), 3.0, np.float32)), 0.0, atol=1e-6)
    expected = -np.log(p(BASE)).mean(-1) - np.log(V)
    np.testing.assert_allclose(c.uld_uniform_term(BASE), expected, atol=1e-5)
    gradient = jax.grad(lambda z: c.uld_uniform_term(z).sum())(jnp.asarray(BASE))
    np.testing.assert_allclose(gradient, p(BASE) - 1 / V, atol=1e-6)


# --- controlled decoding, ARGS, grounded decoding


def test_values_of_no_weight_or_all_equal_change_nothing():
    same_law(c.controlled(BASE, GUIDE, strength=0.0), BASE)
    same_law(c.controlled(BASE, np.full_like(BASE, 7.0), strength=3.0), BASE, 1e-5)


def test_on_one_token_with_the_reward_as_value_it_is_the_regularised_optimum():
    beta = 0.4
    optimum = p(BASE) * np.exp(GUIDE.astype(np.float64) / beta)
    got = c.controlled(BASE, GUIDE, strength=1 / beta)
    np.testing.assert_allclose(p(got), optimum / optimum.sum(-1, keepdims=True), atol=1e-5)


def test_mean_values_are_not_those_of_the_optimum_for_longer_responses():
    """Two tokens: the optimum's first token is tilted by log E[exp(r / beta)], which is more than E[r] / beta."""
    base, rewards, beta = p(logits(11, V + 1)), logits(12, V).astype(np.float64), 0.5
    whole = base[0][:, None] * base[1:] * np.exp(rewards / beta)
    mean, soft = (base[1:] * rewards).sum(-1), beta * np.log((base[1:] * np.exp(rewards / beta)).sum(-1))
    first = whole.sum(1) / whole.sum()
    tilt = lambda v: p(c.controlled(np.log(base[0]).astype(np.float32), v.astype(np.float32), strength=1 / beta))  # noqa: E731
    np.testing.assert_allclose(tilt(soft), first, atol=1e-5)
    assert np.abs(tilt(mean) - first).max() > 0.01


def test_args_is_controlled_decoding_on_its_candidates_and_nothing_else():
    ids = c.candidates(jnp.asarray(BASE), 3)
    rewards = jnp.take_along_axis(jnp.asarray(GUIDE), ids, axis=-1)
    got = np.asarray(c.args(BASE, ids, rewards, weight=1.5))
    inside = np.zeros_like(BASE, bool)
    np.put_along_axis(inside, np.asarray(ids), True, axis=-1)
    np.testing.assert_array_equal(np.isfinite(got), inside)
    np.testing.assert_allclose(got[inside], np.asarray(c.controlled(BASE, GUIDE, strength=1.5))[inside], atol=1e-5)
    all_ids = c.candidates(jnp.asarray(BASE), V)
    whole = c.args(BASE, all_ids, jnp.take_along_axis(jnp.asarray(GUIDE), all_ids, axis=-1), weight=1.5)
    np.testing.assert_allclose(whole, c.controlled(BASE, GUIDE, strength=1.5), atol=1e-5)


@pytest.mark.parametrize(("count", "weight", "constant"), [(4, 0.0, False), (4, 2.0, True), (1, 5.0, False)])
def test_greedy_args_without_a_say_for_the_reward_is_greedy(count, weight, constant):
    ids = c.candidates(jnp.asarray(BASE), count)
    rewards = np.full(ids.shape, 3.0, np.float32) if constant else np.asarray(ids, np.float32)
    np.testing.assert_array_equal(np.argmax(c.args(BASE, ids, rewards, weight=weight), -1), BASE.argmax(-1))


def test_grounding_scores_multiply_forbid_and_constrain():
    scores = np.random.default_rng(4).uniform(0.1, 1, size=(3, 2, V)).astype(np.float32)
    expected = p(BASE) * scores.prod(1)
    np.testing.assert_allclose(p(c.grounded(BASE, scores)), expected / expected.sum(-1, keepdims=True), atol=1e-6)
    same_law(c.grounded(BASE, np.full((3, 1, V), 0.25, np.float32)), BASE)
    binary = (np.arange(V) % 2 == 0).astype(np.float32) * np.ones((3, 1, 1), np.float32)
    got = p(c.grounded(BASE, binary))
    kept = np.where(np.arange(V) % 2 == 0, p(BASE), 0.0)
    np.testing.assert_allclose(got, kept / kept.sum(-1, keepdims=True), atol=1e-6)
    assert (got[:, 1::2] == 0).all()
    assert (np.asarray(c.grounded(BASE, np.zeros((3, 1, V), np.float32))) == -np.inf).all()


def test_grounding_by_exponentiated_values_is_controlled_decoding():
    values = -np.abs(GUIDE)
    same_law(c.grounded(BASE, np.exp(0.7 * values)[:, None]), c.controlled(BASE, values, strength=0.7), 1e-5)


def test_exact_values_are_the_fixed_point_of_cd_q():
    """Responses of at most two tokens over V = 7, token 0 ends: V(y_1) = E[r | y_1], which the target gives back."""
    base = jax.nn.log_softmax(jnp.asarray(logits(20, V)))  # after each first token
    rewards = logits(21, V)  # of (first, second); a response that ends at once has its own
    final = np.arange(V, dtype=np.float32)
    exact = np.where(np.arange(V) == 0, final, (p(base) * rewards).sum(-1))
    ended = jnp.arange(V) == 0
    targets = c.cd_q_targets(base, jnp.asarray(rewards), jnp.asarray(final), ended)
    np.testing.assert_allclose(targets, exact, atol=1e-5)
    gradient = jax.grad(lambda v: c.cd_q_targets(base, v, jnp.asarray(final), ended).sum())(jnp.asarray(rewards))
    np.testing.assert_array_equal(gradient, 0.0)


# --- all of them

CASES = {
    "genarm": lambda z, g: c.genarm(z, g[..., None, :], alphas=(0.5,)),
    "rlg": lambda z, g: c.rlg(z, g, scale=2.0),
    "contrastive": lambda z, g: c.contrastive(z, g),
    "uld": lambda z, g: c.uld(z, g),
    "uld_filtered": lambda z, g: c.uld_filtered(z, g),
    "controlled": lambda z, g: c.controlled(z, g),
    "grounded": lambda z, g: c.grounded(z, jax.nn.sigmoid(g)[..., None, :]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_first_model_never_draws_stays_out_and_extremes_stay_finite(name):
    z = jnp.asarray(BASE).at[:, 2].set(-jnp.inf)
    got = np.asarray(jax.jit(CASES[name])(z, jnp.asarray(GUIDE)))
    assert (got[:, 2] == -np.inf).all() and not np.isnan(got).any()
    huge = np.asarray(CASES[name](jnp.asarray(1e4 * BASE), jnp.asarray(1e4 * GUIDE)))
    assert not np.isnan(huge).any() and np.isfinite(huge).any(-1).all()


@pytest.mark.parametrize("name", CASES)
def test_any_leading_axes_and_half_precision_give_float32(name):
    z, g = logits(30, 2, 4), logits(31, 2, 4)
    whole = CASES[name](jnp.asarray(z), jnp.asarray(g))
    assert whole.shape == (2, 4, V) and whole.dtype == jnp.float32
    one = CASES[name](jnp.asarray(z[1, 2]), jnp.asarray(g[1, 2]))
    np.testing.assert_allclose(whole[1, 2], one, atol=1e-6)
    assert CASES[name](jnp.asarray(z, jnp.bfloat16), jnp.asarray(g, jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("name", CASES)
def test_another_vocabulary_is_refused(name):
    with pytest.raises(ValueError, match="share one vocabulary"):
        CASES[name](jnp.zeros((2, V)), jnp.zeros((2, V + 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: c.genarm(BASE, stacked(GUIDE), alphas=(1.0, 2.0)), "alphas must have one number for each of the 1"),
        (lambda: c.genarm(BASE, stacked(GUIDE), alphas=(-1.0,)), "alphas"),
        (lambda: c.contrastive(BASE, GUIDE, alpha=1.5), "alpha must lie in"),
        (lambda: c.contrastive(BASE, GUIDE, amateur_temperature=0.0), "amateur_temperature must lie in"),
        (lambda: c.contrastive(BASE, GUIDE, strength=-1.0), "strength must lie in"),
        (lambda: c.uld(BASE, GUIDE, alpha=-0.1), "alpha must lie in"),
        (lambda: c.uld_filtered(BASE, GUIDE, eps=1.0), "eps must lie in"),
        (lambda: c.controlled(BASE, GUIDE, strength=-1.0), "strength must lie in"),
        (lambda: c.args(BASE, np.zeros((3, 1), np.int32), np.zeros((3, 1), np.float32), weight=-1.0), "weight"),
        (lambda: c.candidates(jnp.asarray(BASE), 0), "candidates must be between 1 and the vocabulary's 7, got 0"),
        (lambda: c.candidates(jnp.asarray(BASE), 8), "candidates must be between 1"),
    ],
)
def test_numbers_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
