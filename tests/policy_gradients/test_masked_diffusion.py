"""Bounds of masked diffusion, BGPO, IGPO's choices and advantage weighted matching against the catalogue."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import policy_gradients as pg

L, V = 4, 3
RNG = np.random.default_rng(0)
SUBSETS = jnp.asarray(np.arange(2**L)[:, None] >> np.arange(L) & 1 > 0)
RESPONSE = jnp.ones(L, bool)
Y = tuple(RNG.integers(0, V, L))


def random_predictor(seed):
    """log p(y_i | not S) for every S: any numbers at all, no distribution behind them."""
    return jnp.asarray(-np.random.default_rng(seed).gamma(1.0, size=(2**L, L)), jnp.float32)


def consistent_predictor(seed):
    """The conditionals of one joint distribution over the V^L sequences; with log p(Y)."""
    joint = np.random.default_rng(seed).dirichlet(np.ones(V**L)).reshape((V,) * L)
    table = np.zeros((2**L, L))
    for s, hidden in enumerate(np.asarray(SUBSETS)):
        given = joint[tuple(slice(None) if h else y for h, y in zip(hidden, Y, strict=True))]
        axes = [i for i in range(L) if hidden[i]]
        for place, i in enumerate(axes):
            marginal = given.sum(tuple(a for a in range(len(axes)) if a != place))
            table[s, i] = np.log(marginal[Y[i]] / marginal.sum())
    return jnp.asarray(table, jnp.float32), np.log(joint[Y])


def exact(table):
    return pg.mdlm_elbo_exact(table, SUBSETS)


def over_orders(table):
    table, values = np.asarray(table), []
    for order in itertools.permutations(range(L)):
        hidden, value = set(range(L)), 0.0
        for i in order:
            value += table[sum(1 << h for h in hidden), i]
            hidden.remove(i)
        values.append(value)
    return np.mean(values)


@pytest.mark.parametrize("seed", range(3))
def test_the_exact_bound_is_the_mean_over_generation_orders(seed):
    np.testing.assert_allclose(exact(random_predictor(seed)), over_orders(random_predictor(seed)), rtol=1e-5)


def test_the_bound_of_an_order_consistent_predictor_is_the_log_likelihood():
    table, logp = consistent_predictor(0)
    np.testing.assert_allclose(exact(table), logp, rtol=1e-5)


def test_the_bound_of_one_token_is_its_log_prob():
    table = jnp.array([[0.0], [-1.7]])
    np.testing.assert_allclose(pg.mdlm_elbo_exact(table, jnp.array([[False], [True]])), -1.7, rtol=1e-5)


def rows_of(masked):
    return jnp.sum(masked * 2 ** jnp.arange(L), -1)


def estimates(key, table, count, smallest_time=1e-6):
    times_key, masks_key = jax.random.split(key)
    times = jax.random.uniform(times_key, (count,))
    masked = pg.mdlm_masks(jax.random.uniform(masks_key, (count, L)), times, RESPONSE)
    return pg.mdlm_elbo_terms(table[rows_of(masked)], masked, times, smallest_time=smallest_time)


def by_count(key, table, count):
    hide, order = jax.random.split(key)
    sizes = jax.random.randint(hide, (count,), 1, L + 1)
    ranks = jnp.argsort(jnp.argsort(jax.random.uniform(order, (count, L)), -1), -1)
    masked = ranks < sizes[:, None]
    return pg.mdlm_elbo_terms_by_count(table[rows_of(masked)], masked, RESPONSE)


def test_the_estimate_is_unbiased_and_the_smallest_time_biases_it():
    table, count = random_predictor(1), 200_000
    value = float(exact(table))
    terms = estimates(jax.random.key(0), table, count)
    spread = float(jnp.std(terms)) / count**0.5
    assert abs(float(jnp.mean(terms)) - value) < 4 * spread
    cut = jnp.mean(estimates(jax.random.key(0), table, count, smallest_time=0.4))
    assert abs(float(cut) - value) > 10 * spread


def test_drawing_the_number_of_hidden_tokens_has_the_same_mean_and_a_lower_variance():
    table, count = random_predictor(1), 100_000
    terms, counted = estimates(jax.random.key(0), table, count), by_count(jax.random.key(1), table, count)
    assert abs(float(jnp.mean(counted) - exact(table))) < 4 * float(jnp.std(counted)) / count**0.5
    assert jnp.std(counted) < 0.7 * jnp.std(terms)


def test_shared_maskings_cancel_the_noise_of_a_difference():
    table, count = random_predictor(1), 2000
    near = table + 0.1
    shared = estimates(jax.random.key(0), table, count) - estimates(jax.random.key(0), near, count)
    separate = estimates(jax.random.key(0), table, count) - estimates(jax.random.key(1), near, count)
    assert jnp.std(shared) < 0.2 * jnp.std(separate)


def test_neither_prompt_nor_padding_is_ever_hidden():
    mask = jnp.array([[True, False, True, False]])
    masked = pg.mdlm_masks(jnp.zeros((1, 3, L)), jnp.ones((1, 3)), mask)
    np.testing.assert_array_equal(masked, jnp.broadcast_to(mask[:, None], (1, 3, L)))


def test_a_masking_that_hides_nothing_is_worth_nothing():
    nothing = jnp.zeros((1, L), bool)
    np.testing.assert_array_equal(pg.mdlm_elbo_terms(jnp.full((1, L), -2.0), nothing, jnp.array([0.1])), 0)
    np.testing.assert_array_equal(pg.mdlm_elbo_terms_by_count(jnp.full((1, L), -2.0), nothing, RESPONSE), 0)


# ----------------------------------------------------------------------------------------------------------- BGPO

TERMS = jnp.asarray(RNG.normal(-5, 1, size=(64, 6)), jnp.float32)
MOVED = TERMS + jnp.asarray(RNG.normal(size=TERMS.shape), jnp.float32)
ADVANTAGES = jnp.asarray(RNG.normal(size=64), jnp.float32)


def slopes(loss, terms, *args):
    return jax.grad(lambda x: jnp.sum(loss(x, *args)))(terms)


def test_on_policy_bound_and_objective_agree_in_value_and_gradient():
    np.testing.assert_allclose(pg.bgpo(TERMS, TERMS, ADVANTAGES), -ADVANTAGES, rtol=1e-6)
    np.testing.assert_allclose(pg.elbo_surrogate(TERMS, TERMS, ADVANTAGES), -ADVANTAGES, rtol=1e-6)
    for loss in (pg.bgpo, pg.elbo_surrogate):
        got = slopes(loss, TERMS, TERMS, ADVANTAGES)
        np.testing.assert_allclose(got, jnp.broadcast_to(-ADVANTAGES[:, None] / 6, TERMS.shape), rtol=1e-5)


def test_the_bound_is_never_above_the_objective():
    bound, objective = -pg.bgpo(MOVED, TERMS, ADVANTAGES), -pg.elbo_surrogate(MOVED, TERMS, ADVANTAGES)
    assert np.all(bound <= objective + 1e-5) and np.any(bound < objective - 0.1)


def test_gradient_of_each_term_is_the_papers():
    d, a = MOVED - TERMS, ADVANTAGES[:, None]
    expected = -jnp.where(a >= 0, a / 6, a * jnp.exp(d) / 6)
    np.testing.assert_allclose(slopes(pg.bgpo, MOVED, TERMS, ADVANTAGES), expected, rtol=1e-4)


def test_for_a_good_response_it_is_linear_in_the_terms_and_for_one_masking_of_a_bad_one_exact():
    good, bad = jnp.abs(ADVANTAGES), -jnp.abs(ADVANTAGES)
    values = [pg.bgpo(TERMS + c * (MOVED - TERMS), TERMS, good) for c in (0.0, 1.0, 2.0)]
    np.testing.assert_allclose(values[2] - values[1], values[1] - values[0], rtol=1e-4, atol=1e-5)
    one = (MOVED[:, :1], TERMS[:, :1], bad)
    np.testing.assert_allclose(pg.bgpo(*one), pg.elbo_surrogate(*one), rtol=1e-5)


def test_gradient_may_be_accumulated_one_masking_at_a_time():
    whole = slopes(pg.bgpo, MOVED, TERMS, ADVANTAGES)
    parts = [slopes(pg.bgpo, MOVED[:, j : j + 1], TERMS[:, j : j + 1], ADVANTAGES) / 6 for j in range(6)]
    np.testing.assert_allclose(jnp.concatenate(parts, -1), whole, rtol=1e-5)


# ------------------------------------------------------------------------------------------- diffu-GRPO and IGPO


def test_mean_field_log_probs_are_read_place_by_place_and_sum_to_one():
    logits, mask = jnp.asarray(RNG.normal(size=(2, L, V)), jnp.float32), jnp.ones((2, L), bool)
    per_token = jnp.stack([pg.mean_field_token_logps(logits, jnp.full((2, L), v), mask) for v in range(V)])
    np.testing.assert_allclose(jnp.exp(per_token).sum(0), 1, rtol=1e-6)
    tokens, order = jnp.asarray(RNG.integers(0, V, (2, L))), jnp.array([2, 0, 3, 1])
    whole = pg.mean_field_token_logps(logits, tokens, mask)
    permuted = pg.mean_field_token_logps(logits[:, order], tokens[:, order], mask)
    np.testing.assert_array_equal(permuted, whole[:, order])


def test_prompt_masks_hide_the_given_share_of_the_prompt_only():
    uniforms, prompt = jax.random.uniform(jax.random.key(0), (400, 50)), jnp.arange(50) < 30
    hidden = pg.diffu_grpo_prompt_masks(uniforms, jnp.broadcast_to(prompt, (400, 50)))
    assert not hidden[:, 30:].any()
    np.testing.assert_allclose(hidden[:, :30].mean(), 0.15, atol=0.01)
    assert not pg.diffu_grpo_prompt_masks(uniforms, jnp.ones((400, 50), bool), rate=0.0).any()


def hints(share, length=60, rows=50):
    lengths, order = jax.random.uniform(jax.random.key(0), (2, rows, 64))
    mask = jnp.broadcast_to(jnp.arange(64) < length, (rows, 64))
    return pg.igpo_hint_masks(lengths, order, jnp.full(rows, share), mask), mask


def test_all_chunks_are_the_full_trace_and_none_is_plain_resampling():
    np.testing.assert_array_equal(*hints(1.0))
    assert not hints(0.0)[0].any()


def test_hints_are_whole_chunks_and_about_the_share_asked_for():
    got, _ = hints(0.4)
    np.testing.assert_allclose(got.sum(-1).mean() / 60, 0.4, atol=0.04)
    for row in np.asarray(got):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row[:60], [0]]).astype(int)))
        starts, ends = edges[::2], edges[1::2]
        runs = (ends - starts)[ends < 60]
        assert np.all(runs >= 5)


def groups(successes, good, size=8):
    ids = jnp.repeat(jnp.array([4, 11]), size)
    rewards = jnp.zeros(2 * size).at[:successes].set(1.0)
    correct = jnp.zeros(2 * size, bool).at[jnp.arange(good)].set(True)
    return rewards, correct, ids, jnp.ones(2 * size, bool)


def test_groups_with_a_success_are_left_as_they_are():
    assert np.all(pg.igpo_replacements(*groups(successes=1, good=8)) == -1)


@pytest.mark.parametrize("good,expected", [(0, 0), (3, 3), (8, 4)])
def test_at_most_half_of_an_all_wrong_group_is_replaced_by_what_was_verified(good, expected):
    rewards, correct, ids, valid = groups(successes=0, good=good)
    taken = np.asarray(pg.igpo_replacements(rewards, correct, ids, valid))
    assert (taken >= 0).sum() == expected == len(set(taken[taken >= 0]))
    assert np.all(correct[taken[taken >= 0]]) and np.all(ids[taken[taken >= 0]] == ids[taken >= 0])
    if expected > 0:
        new = np.where(taken >= 0, 1.0, 0.0)[:8]
        np.testing.assert_allclose(np.unique((new - new.mean()).round(6)), [-expected / 8, 1 - expected / 8])


def test_replacements_over_shuffled_groups_take_each_verified_sample_once():
    rng = np.random.default_rng(5)
    ids, correct = rng.permutation(np.repeat([1, 2, 3], 4)), rng.random(12) < 0.5
    taken = np.asarray(pg.igpo_replacements(jnp.zeros(12), jnp.asarray(correct), jnp.asarray(ids), jnp.ones(12, bool)))
    for group in (1, 2, 3):
        mine = taken[ids == group]
        used = mine[mine >= 0]
        assert len(used) == len(set(used)) == min(correct[ids == group].sum(), 2)
        assert np.all(ids[used] == group) and correct[used].all()


def test_hint_filter_keeps_what_was_generated_and_the_most_uncertain_hints():
    entropies = jnp.asarray(RNG.random((6, 20)), jnp.float32)
    hint, mask = (jnp.asarray(RNG.random((6, 20)) < share) for share in (0.6, 0.9))
    np.testing.assert_array_equal(pg.igpo_token_mask(entropies, hint, mask, tau=1.0), mask)
    kept = np.asarray(pg.igpo_token_mask(entropies, hint, mask, tau=0.2))
    np.testing.assert_array_equal(kept & ~hint, mask & ~hint)
    for row in range(6):
        hints_here = np.flatnonzero(hint[row] & mask[row])
        count = max(1, int(0.2 * len(hints_here)))
        best = hints_here[np.argsort(-entropies[row, hints_here])[:count]]
        assert set(np.flatnonzero(kept[row] & hint[row])) == set(best)


# ------------------------------------------------------------------------------------------------------------ AWM

VELOCITIES, SAMPLES, NOISES = (jnp.asarray(x, jnp.float32) for x in RNG.normal(size=(3, 16, 5)))
WEIGHTS = jnp.asarray(RNG.random(16), jnp.float32)


def matching(velocities):
    return WEIGHTS * jnp.mean((velocities - (NOISES - SAMPLES)) ** 2, -1)


def awm_of(velocities, advantages, **hyper):
    old = pg.awm_logps(VELOCITIES, SAMPLES, NOISES, WEIGHTS)
    return pg.awm(pg.awm_logps(velocities, SAMPLES, NOISES, WEIGHTS), old, advantages, **hyper)


def test_on_policy_gradient_is_advantage_weighted_matching():
    advantages = ADVANTAGES[:16]
    expected = jax.grad(lambda v: jnp.sum(advantages * matching(v)))(VELOCITIES)
    np.testing.assert_allclose(slopes(awm_of, VELOCITIES, advantages), expected, rtol=1e-4, atol=1e-6)


def test_with_advantage_one_it_is_pre_training_on_own_samples():
    got = slopes(awm_of, VELOCITIES, jnp.ones(16))
    np.testing.assert_allclose(got, jax.grad(lambda v: jnp.sum(matching(v)))(VELOCITIES), rtol=1e-4, atol=1e-6)


def test_a_negative_advantage_pushes_the_velocity_away_from_its_target():
    step = VELOCITIES - 0.1 * slopes(awm_of, VELOCITIES, -jnp.ones(16))
    assert np.all(matching(step) > matching(VELOCITIES))


def test_conditional_mean_of_the_noisy_target_is_the_clean_one_and_its_variance_explodes():
    """x_t = (1 - t) x0 + t e; along one forward path x_t = a x_s + b e', so the transition's score is -e' / b."""
    t, x0, x_t = 0.8, 0.7, 1.1
    clean = -(x_t - (1 - t) * x0) / t**2
    previous, count = 0.0, 400_000
    for s in (0.2, 0.5, 0.7, 0.79, 0.799):
        a = (1 - t) / (1 - s)
        variance = t**2 - (a * s) ** 2
        # x_s given x0 and x_t: Gaussian, from its prior N((1 - s) x0, s^2) and the observation x_t = a x_s + noise
        precision = 1 / s**2 + a**2 / variance
        mean = ((1 - s) * x0 / s**2 + a * x_t / variance) / precision
        x_s = mean + jax.random.normal(jax.random.key(0), (count,)) / precision**0.5
        scores = -(x_t - a * x_s) / variance
        np.testing.assert_allclose(scores.mean(), clean, atol=6 * float(scores.std()) / count**0.5)
        assert scores.var() > previous
        previous = scores.var()
    assert previous > 20 / t**2


def test_penalty_is_zero_at_the_reference_and_pulls_towards_it():
    np.testing.assert_array_equal(pg.awm_velocity_penalty(VELOCITIES, VELOCITIES), 0)
    got = slopes(pg.awm_velocity_penalty, VELOCITIES, SAMPLES)
    np.testing.assert_allclose(got, 2 * (VELOCITIES - SAMPLES) / 5, rtol=1e-5)
