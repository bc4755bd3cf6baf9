"""Ensembles of reward models: the identities of WCO, UWO, the entropic aggregate, BRME and votes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alignment.rewards import ensembles

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
scores = hnp.arrays(np.float32, (3, 4), elements=st.floats(-5, 5, width=32))
RNG = np.random.default_rng(0)
AGGREGATES = (ensembles.ensemble_mean, ensembles.worst_case, ensembles.uncertainty_weighted, ensembles.entropic,
              ensembles.brme_mean)  # fmt: skip
each = pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda f: f.__name__)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@each
def test_one_member_is_its_own_ensemble(aggregate):
    alone = draw(6, 1)
    np.testing.assert_allclose(aggregate(alone), alone[:, 0], rtol=1e-6, atol=1e-6)


@each
def test_a_constant_added_to_all_members_is_added_to_the_result(aggregate):
    members = draw(6, 4)
    np.testing.assert_allclose(aggregate(members + 3), aggregate(members) + 3, rtol=1e-4)


@each
def test_the_order_of_the_members_does_not_matter_and_half_precision_becomes_float32(aggregate):
    members = draw(6, 4)
    np.testing.assert_allclose(aggregate(members[:, ::-1]), aggregate(members), rtol=1e-5, atol=1e-6)
    assert aggregate(members.astype(jnp.bfloat16)).dtype == jnp.float32


def test_without_a_penalty_uwo_is_the_mean_and_the_penalty_is_not_free_of_scale():
    members = draw(6, 4)
    mean = ensembles.ensemble_mean(members)
    np.testing.assert_allclose(ensembles.uncertainty_weighted(members, penalty=0.0), mean)
    cost, cost_of_double = (k * mean - ensembles.uncertainty_weighted(k * members) for k in (1, 2))
    np.testing.assert_allclose(cost_of_double, 4 * cost, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cost, 0.5 * members.var(axis=-1), rtol=1e-4)
    sample = mean - ensembles.uncertainty_weighted(members, ddof=1)
    np.testing.assert_allclose(sample, cost * 4 / 3, rtol=1e-4)


@quick
@given(scores, st.floats(0.05, 20))
def test_the_entropic_aggregate_lies_between_the_worst_case_and_the_mean(members, beta):
    got = ensembles.entropic(members, beta=beta)
    assert (ensembles.worst_case(members) <= got + 1e-3).all()
    assert (got <= ensembles.ensemble_mean(members) + 1e-3).all()


def test_limits_of_the_entropic_aggregate():
    members = draw(6, 4)
    mean, variance = members.mean(axis=-1), members.var(axis=-1)
    np.testing.assert_allclose(ensembles.entropic(members, beta=1e-3), ensembles.worst_case(members), atol=0.01)
    np.testing.assert_allclose(ensembles.entropic(members, beta=1e3), mean, atol=0.005)
    expected = ensembles.uncertainty_weighted(members, penalty=1 / 40)
    np.testing.assert_allclose(ensembles.entropic(members, beta=20.0), expected, atol=float(variance.max()) * 2e-2)


def test_standardised_members_have_mean_zero_and_deviation_one_where_they_were_measured():
    members = draw(50, 3) * jnp.array([1.0, 10.0, 0.0]) + jnp.array([5.0, -5.0, 2.0])
    got = ensembles.standardised(members, members.mean(axis=0), members.std(axis=0))
    np.testing.assert_allclose(got.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(got.std(axis=0), [1.0, 1.0, 0.0], rtol=1e-4)


def test_votes_change_sign_with_the_sides_and_do_not_see_a_voters_level():
    chosen, rejected = draw(6, 5), draw(6, 5)
    mean, spread = ensembles.preference_strength(chosen, rejected)
    swapped = ensembles.preference_strength(rejected, chosen)
    np.testing.assert_allclose(swapped, (-mean, spread), rtol=1e-5, atol=1e-6)
    level = draw(6, 5)
    np.testing.assert_allclose(
        ensembles.preference_strength(chosen + level, rejected + level), (mean, spread), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(ensembles.preference_strength(chosen[:, :1], rejected[:, :1])[1], 0.0)


def test_more_voters_agree_better_with_the_truth_and_flipped_pairs_lie_below_zero():
    rng = np.random.default_rng(1)
    gap = rng.normal(size=2000)
    flipped = rng.random(2000) < 0.2
    shown = np.where(flipped, -gap, gap)[:, None] + rng.normal(size=(2000, 10)) * 1.5
    zero = jnp.zeros((2000, 1))
    few, many = (
        ensembles.preference_strength(jnp.asarray(shown[:, :m]), jnp.broadcast_to(zero, (2000, m)))[0] for m in (1, 10)
    )
    truth = np.where(flipped, -gap, gap)
    assert np.corrcoef(many, truth)[0, 1] > np.corrcoef(few, truth)[0, 1] + 0.1


# --- BRME ------------------------------------------------------------------------------------------------------------


@quick
@given(scores, st.floats(0, 1), st.floats(0, 1))
def test_the_robust_reward_grows_with_the_weight_of_the_nominal_one(means, low, high):
    low, high = min(low, high), max(low, high)
    deviations = np.abs(means) + 0.1
    a, b = (ensembles.brme(means, deviations, nominal_weight=w) for w in (low, high))
    assert (a <= b + 1e-4).all()


def test_ends_of_the_robust_reward():
    means, deviations = draw(6, 4), jnp.abs(draw(6, 4)) + 0.1
    np.testing.assert_allclose(ensembles.brme(means, deviations, nominal_weight=0.0), means.min(axis=-1))
    np.testing.assert_allclose(ensembles.brme_mean(means, nominal_weight=1.0), means.mean(axis=-1), rtol=1e-6)
    surest = np.asarray(means)[np.arange(6), np.argmin(deviations, axis=-1)]
    np.testing.assert_allclose(ensembles.brme(means, deviations, nominal_weight=1.0), surest)
    one = ensembles.brme(means[:, :1], deviations[:, :1], nominal_weight=0.3)
    np.testing.assert_allclose(one, means[:, 0], rtol=1e-6)


def test_the_minimum_per_sample_is_below_the_minimum_of_the_means():
    means = draw(50, 4)
    assert ensembles.brme_mean(means, nominal_weight=0.0).mean() <= means.mean(axis=0).min()


def test_heads_of_the_trained_model_are_means_and_then_deviations():
    means, raw = jnp.array([[1.0, 3.0]]), jnp.array([[2.0, -2.0]])
    got = ensembles.brme_of_heads(jnp.concatenate([means, raw], axis=-1), nominal_weight=0.25)
    np.testing.assert_allclose(got, [0.25 * 3.0 + 0.75 * 1.0])


def test_arguments_out_of_range_are_errors():
    members = draw(2, 1)
    for call, said in (
        (lambda: ensembles.uncertainty_weighted(members, ddof=1), "ddof must be 0 or 1"),
        (lambda: ensembles.uncertainty_weighted(members, penalty=-1.0), r"penalty must lie in \[0, inf\)"),
        (lambda: ensembles.entropic(members, beta=0.0), r"beta must lie in \(0, inf\)"),
        (lambda: ensembles.brme_mean(members, nominal_weight=1.5), r"nominal_weight must lie in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(AssertionError, match="axis of members"):
        ensembles.worst_case(jnp.zeros(()))
