"""KTO and BCO against their identities in the catalogue."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment import losses, objective, statistics
from alignment.losses import bco, bco_delta, bco_udm_weight, dpo, kto, kto_kl
from alignment.losses.unpaired import BcoState

B, BETA = 8, 0.3
RNG = np.random.default_rng(0)
POLICY, REFERENCE, POLICY_OTHER, REFERENCE_OTHER = (
    jnp.asarray(-10 + 2 * RNG.normal(size=B), jnp.float32) for _ in range(4)
)
WANTED = jnp.arange(B) % 3 == 0
ALL = jnp.ones(B, bool)
R = POLICY - REFERENCE
STATE = BcoState(jnp.array([0.4, -0.7]))


def mesh():
    count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


# ------------------------------------------------------------------------------------------------------------ kto


def at_gap(gap, wanted, **hyper):
    """KTO of one example among two whose mismatched pairs put z0 at 0.7."""
    ratios = jnp.array([0.7 + gap, 0.0])
    zero, other = jnp.zeros(2), jnp.full(2, 0.7)
    return kto(ratios, zero, other, zero, jnp.array([wanted, wanted]), jnp.ones(2, bool), **hyper)[0]


@pytest.mark.parametrize("wanted,weight", [(True, 1.3), (False, 0.8)])
def test_kto_at_its_zero_point_is_half_the_weight(wanted, weight):
    got = at_gap(0.0, wanted, desirable_weight=1.3, undesirable_weight=0.8)
    np.testing.assert_allclose(got, weight / 2, rtol=1e-6)


def test_kto_with_no_divergence_is_apo_zero_summed_over_a_pair():
    """apo_zero: (1 - s(beta a_w)) + s(beta a_l)."""
    negative = REFERENCE_OTHER - 5
    values = kto(POLICY, REFERENCE, negative, REFERENCE_OTHER, WANTED, ALL, beta=BETA)
    apo = jnp.where(WANTED, 1 - jax.nn.sigmoid(BETA * R), jax.nn.sigmoid(BETA * R))
    np.testing.assert_allclose(values, apo, rtol=1e-5, atol=1e-7)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 20.0]))
def test_kto_lies_between_zero_and_the_weight(seed, scale):
    a, b, c, d = jnp.asarray(scale * np.random.default_rng(seed).normal(size=(4, B)), jnp.float32)
    values = kto(a, b, c, d, WANTED, ALL, desirable_weight=1.3, undesirable_weight=0.8)
    assert (values >= 0).all() and (values <= jnp.where(WANTED, 1.3, 0.8)).all()


@pytest.mark.parametrize("wanted", [True, False])
def test_kto_gradient_vanishes_far_from_the_zero_point_on_both_sides_and_points_the_right_way_at_it(wanted):
    slope = jax.grad(lambda gap: at_gap(gap, wanted, beta=1.0))
    assert abs(slope(-50.0)) < 1e-6 and abs(slope(50.0)) < 1e-6
    np.testing.assert_allclose(slope(0.0), -0.25 if wanted else 0.25, rtol=1e-6)


def test_kto_passes_no_gradient_through_the_zero_point():
    gradient = jax.grad(lambda c: jnp.sum(kto(POLICY, REFERENCE, c, REFERENCE_OTHER, WANTED, ALL)))(POLICY_OTHER + 9)
    assert kto_kl(POLICY_OTHER + 9, REFERENCE_OTHER, ALL) > 0
    np.testing.assert_array_equal(gradient, 0.0)


def test_kto_kl_of_a_padded_batch_is_that_of_its_examples():
    valid = jnp.arange(B) < 5
    poisoned = jnp.where(valid, POLICY_OTHER + 9, jnp.nan)
    expected = kto_kl(POLICY_OTHER[:5] + 9, REFERENCE_OTHER[:5], ALL[:5])
    np.testing.assert_allclose(kto_kl(poisoned, REFERENCE_OTHER, valid), expected, rtol=1e-6)
    assert kto_kl(POLICY_OTHER + 9, REFERENCE_OTHER, ~ALL) == 0


# ------------------------------------------------------------------------------------------------------------ bco


def bco_of(rewards, wanted, delta):
    """BCO of rewards at a shift: two states of equal averages, and no example that could move them."""
    n = len(rewards)
    still = 1 - 1e-9  # as near 1 as the range allows
    values, _ = bco.loss(
        jnp.asarray(rewards, jnp.float32), jnp.zeros(n), jnp.asarray(wanted), jnp.ones(n, bool),
        BcoState(jnp.full(2, delta, jnp.float32)), beta=1.0, momentum=still,
    )  # fmt: skip
    return values


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(chosen=st.floats(-20, 20), rejected=st.floats(-20, 20), delta=st.floats(-20, 20))
def test_bco_of_the_two_sides_of_a_pair_bounds_dpo_from_above_for_any_shift(chosen, rejected, delta):
    zero = jnp.zeros(())
    pair = dpo(jnp.float32(chosen), jnp.float32(rejected), zero, zero, beta=1.0)
    assert bco_of([chosen, rejected], [True, False], delta).sum() >= pair - 1e-5


@pytest.mark.parametrize("chosen,rejected", [(1.0, -2.0), (-3.0, 0.5), (0.2, 0.1)])
def test_bco_with_the_shift_half_way_between_a_pair_is_twice_the_softplus_of_half_the_gap(chosen, rejected):
    got = bco_of([chosen, rejected], [True, False], (chosen + rejected) / 2).sum()
    np.testing.assert_allclose(got, 2 * np.log1p(np.exp(-(chosen - rejected) / 2)), rtol=1e-5)


def test_bco_moves_its_averages_before_it_uses_them_and_the_update_keeps_them():
    values, aux = bco.loss(POLICY, REFERENCE, WANTED, ALL, STATE, beta=BETA, momentum=0.6)
    moved = bco.update(STATE, aux, beta=BETA, momentum=0.6)
    delta = moved.averages.mean()
    np.testing.assert_allclose(
        values, jnp.where(WANTED, jax.nn.softplus(delta - BETA * R), jax.nn.softplus(BETA * R - delta)), rtol=1e-5
    )
    expected = [
        0.6 * old + 0.4 * BETA * R[group].mean() for old, group in zip(STATE.averages, (WANTED, ~WANTED), strict=True)
    ]
    np.testing.assert_allclose(moved.averages, expected, rtol=1e-5)


def test_bco_gradient_treats_the_shift_as_a_constant():
    got = jax.grad(lambda p: jnp.sum(bco.loss(p, REFERENCE, WANTED, ALL, STATE, beta=BETA)[0]))(POLICY)
    delta = bco_delta(STATE.averages, BETA * R, WANTED, ALL).mean()
    s = jax.nn.sigmoid(jnp.where(WANTED, delta - BETA * R, BETA * R - delta))
    np.testing.assert_allclose(got, jnp.where(WANTED, -BETA * s, BETA * s), rtol=1e-4)


def test_bco_delta_weighs_the_groups_alike_whatever_their_sizes():
    rewards = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -3.0])
    wanted = rewards > 0
    delta = bco_delta(jnp.zeros(2), rewards, wanted, ALL, momentum=0.0).mean()
    np.testing.assert_allclose(delta, -1.0)
    assert rewards.mean() == 0.5  # what a mean over all rewards would be


def test_bco_delta_keeps_the_average_of_a_group_that_the_batch_lacks():
    averages = jnp.array([0.4, -0.7])
    for group, kept in ((ALL, 1), (~ALL, 0)):
        got = bco_delta(averages, R, group, ALL)
        assert got[kept] == averages[kept] and got[1 - kept] != averages[1 - kept]
    np.testing.assert_array_equal(bco_delta(averages, R, WANTED, ~ALL), averages)


def test_bco_delta_ignores_rows_that_only_pad_even_as_nan():
    valid = jnp.arange(B) < 5
    got = bco_delta(STATE.averages, jnp.where(valid, R, jnp.nan), WANTED, valid)
    np.testing.assert_allclose(got, bco_delta(STATE.averages, R[:5], WANTED[:5], ALL[:5]), rtol=1e-6)


def test_bco_state_updated_over_devices_is_that_of_the_batch():
    _, aux = bco.loss(POLICY, REFERENCE, WANTED, ALL, STATE)
    update = jax.shard_map(
        lambda state, aux: bco.update(state, aux, axis_name="data"),
        mesh=mesh(),
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    np.testing.assert_allclose(update(STATE, aux).averages, bco.update(STATE, aux).averages, rtol=1e-5)


def test_bco_starts_at_the_averages_of_a_policy_that_is_the_reference():
    _, aux = bco.loss(POLICY, POLICY, WANTED, ALL, bco.init())
    np.testing.assert_array_equal(bco.update(bco.init(), aux).averages, bco.init().averages)


def test_bco_udm_weight_is_the_odds_clipped_and_leaves_wanted_completions_alone():
    p = jnp.array([1e-6, 0.3, 0.5, 0.8, 1 - 1e-6])
    logits = jnp.log(p) - jnp.log1p(-p)
    got = bco_udm_weight(logits, jnp.zeros(5, bool), smallest=0.5, largest=10.0)
    np.testing.assert_allclose(got, np.clip(p / (1 - p), 0.5, 10.0), rtol=1e-5)
    np.testing.assert_array_equal(bco_udm_weight(logits, jnp.ones(5, bool)), 1.0)


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_it_binds_to_single_labelled_completions_and_only_as_a_whole_batch(name):
    sides = ("", "mismatched")
    terms = objective.bind({name: {"beta": 0.5}}, losses, "objective", sides, ("desirable", "valid"))
    needs = statistics.needs_of(objective.names_of(terms))
    assert needs.models == {"reference"} and needs.policy == {"token_logps"} and not needs.head
    with pytest.raises(ValueError, match=r"config\.training\.accumulate.*whole batch"):
        objective.check_accumulation(terms, 2)
    with pytest.raises(ValueError, match="'desirable'"):
        objective.bind({name: {}}, losses, "objective", sides, ("valid",))
