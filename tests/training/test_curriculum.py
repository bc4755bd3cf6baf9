"""Curricula as functions of arrays: whom they choose, what they remember, and that nothing else decides."""

import jax
import numpy as np
import pytest

from alignment.policy_gradients import selection, spo_sampling_weights
from alignment.training import curriculum

KEY = jax.random.key(3)


def knapsack(rates, count=8, group_size=2, **hyper):
    state = curriculum.KnapsackState(np.asarray(rates, np.float32))
    return curriculum.knapsack_rl.choose(state, np.arange(len(rates)), count, group_size, **hyper)


def test_knapsack_spends_the_whole_budget_in_rows_and_leaves_nobody_out():
    rng = np.random.default_rng(0)
    for _ in range(20):
        chosen = knapsack(rng.random(8), count=32, group_size=2, rows_per_prompt=4)
        assert len(chosen) == 32 and set(chosen) == set(range(8))


def test_knapsack_gives_all_prompts_the_same_before_any_was_visited():
    state = curriculum.knapsack_rl.init(6)
    chosen = curriculum.knapsack_rl.choose(state, np.array([5, 0, 3]), 6, 4)
    np.testing.assert_array_equal(chosen, [5, 5, 0, 0, 3, 3])


def test_knapsack_goes_where_groups_are_mixed_and_shares_what_nobody_gains_from():
    counts = np.bincount(knapsack([0.0, 0.3, 1.0], count=12, rows_per_prompt=4), minlength=3)
    np.testing.assert_array_equal(counts, [1, 10, 1])
    np.testing.assert_array_equal(np.bincount(knapsack([0.0, 1.0, 0.0, 1.0]), minlength=4), 2)
    clamped = np.bincount(knapsack([0.0, 0.3, 1.0], count=12, rows_per_prompt=4, clamp=0.1), minlength=3)
    assert clamped[0] > 1, "an estimate of 0 does not rule a prompt out"


def test_knapsack_by_rows_is_the_optimum_of_that_granularity():
    rates = np.array([0.1, 0.4, 0.7, 0.95])
    for unit in (1, 2, 3):
        given = {"total": 24, "lowest": 2, "highest": 14, "unit": unit}
        quick, exact = (
            selection.knapsack_allocation(rates, **given),
            selection.knapsack_allocation_exact(rates, **given),
        )
        worth = [np.sum((1 - rates**n - (1 - rates) ** n) * rates * (1 - rates) ** 2) for n in (quick, exact)]
        assert worth[0] == pytest.approx(worth[1], rel=1e-12)
        assert not ((quick - 2) % unit).any() and quick.sum() <= 24 and quick.max() <= 14


def test_knapsack_remembers_the_rate_of_the_last_visit_alone():
    state = curriculum.knapsack_rl.init(4)
    ids, valid = np.array([2, 2, 0, 2, 3]), np.array([True, True, True, True, False])
    state = curriculum.knapsack_rl.update(state, ids, np.array([True, False, True, False, True]), valid)
    np.testing.assert_allclose(state.rates, [1.0, 0.5, 1 / 3, 0.5])
    state = curriculum.knapsack_rl.update(state, np.array([2]), np.array([False]), np.array([True]))
    np.testing.assert_allclose(state.rates, [1.0, 0.5, 0.0, 0.5])


def test_spo_draws_different_prompts_and_uncertain_ones_more_often():
    state = curriculum.spo.init(np.array([0.0, 4.0, 8.0, 4.0]), np.array([8, 8, 8, 8]), prior_samples=8)
    ids = np.array([0, 1, 2])  # 3 is not there
    drawn = np.array([curriculum.spo.choose(state, ids, KEY, place, 2) for place in range(300)])
    assert set(drawn.reshape(-1)) == {0, 1, 2} and (drawn[:, 0] != drawn[:, 1]).all()
    first = np.bincount(drawn[:, 0], minlength=3) / len(drawn)
    weights = np.asarray(spo_sampling_weights(*(np.asarray(x) for x in state)))[:3]
    np.testing.assert_allclose(first, weights / weights.sum(), atol=0.08)
    np.testing.assert_array_equal(curriculum.spo.choose(state, ids, KEY, 5, 2), drawn[5])


def test_spo_without_a_prior_starts_every_prompt_at_one_half():
    state = curriculum.spo.init(np.zeros(3, np.float32), np.zeros(3, np.int32))
    np.testing.assert_allclose(state.successes, state.failures)
    np.testing.assert_allclose(state.successes + state.failures, 1 / (1 - 0.875))


def test_pcl_takes_the_prompts_nearest_to_tau_each_once():
    pool, values = np.array([7, 3, 9, 3, 1]), np.array([0.9, 0.45, 0.2, 0.45, 0.6], np.float32)
    np.testing.assert_array_equal(curriculum.pcl.choose(pool, values, 2), [3, 1])
    np.testing.assert_array_equal(curriculum.pcl.choose(pool, values, 2, tau=1.0), [7, 1])
    assert sorted(curriculum.pcl.choose(pool, values, 4)) == [1, 3, 7, 9]
    with pytest.raises(ValueError, match="4 different prompts, fewer than the 5"):
        curriculum.pcl.choose(pool, values, 5)


def test_pcl_with_a_pool_of_one_iteration_takes_what_it_is_offered():
    assert curriculum.pcl.offered(16, pool_factor=1) == 16
    pool = np.arange(10, 14)
    assert set(curriculum.pcl.choose(pool, np.linspace(0, 1, 4, dtype=np.float32), 4)) == set(pool)


def gain_epochs(state, epochs, ids=range(40), count=4, length=16, rate=1.0, concentration=1.0, **hyper):
    """The prompts of some epochs, the centers after each, and the last state."""
    ids, drawn, centers, place = np.array(ids), [], [], 0
    for _ in range(epochs * length // count):
        chosen = curriculum.gain_rl.choose(state, ids, KEY, place, count, samples_per_epoch=length, **hyper)
        correct = np.arange(8) < 8 * rate
        state = curriculum.gain_rl.update(
            state, ids, correct, np.ones(8, bool), np.full(count, concentration, np.float32), samples_per_epoch=length
        )
        drawn.append(chosen)
        place += count
        if place % length == 0:
            centers.append(float(state.center))
    return np.array(drawn).reshape(epochs, length), centers, state


def test_gain_rl_draws_without_replacement_within_an_epoch_and_starts_with_the_concentrated():
    concentrations = np.linspace(1, 0, 40, dtype=np.float32)
    drawn, _, _ = gain_epochs(curriculum.gain_rl.init(concentrations), 1, sigma=4.0)
    assert len(set(drawn[0])) == 16
    assert drawn[0][:8].mean() < 8, "the first are of the highest ranks"


def test_gain_rl_slides_by_the_rule_of_its_kernel_once_an_epoch():
    state = curriculum.gain_rl.init(np.zeros(40, np.float32))
    _, centers, state = gain_epochs(state, 3, rate=0.75, concentration=0.3)
    step = 8 * (np.tanh(2 * (0.75 - 0.5)) + np.tanh(2 * 0.3))
    np.testing.assert_allclose(centers, step * np.arange(1, 4), rtol=1e-5)
    assert state.rows == 0 and state.successes == 0
    _, centers, _ = gain_epochs(curriculum.gain_rl.init(np.zeros(40, np.float32)), 2, rate=0.0, concentration=0.0)
    assert centers == [0.0, 0.0], "never backwards"


def test_gain_rl_looks_at_prompts_that_are_there_and_has_epochs_of_whole_iterations():
    concentrations = np.full(40, -np.inf, np.float32)
    ids = np.arange(0, 40, 4)
    concentrations[ids] = np.linspace(0, 1, 10)
    drawn, _, _ = gain_epochs(curriculum.gain_rl.init(concentrations), 1, ids=ids, length=8)
    assert set(drawn.reshape(-1)) <= set(ids)
    with pytest.raises(ValueError, match="samples_per_epoch"):
        curriculum.gain_rl.choose(curriculum.gain_rl.init(concentrations), ids, KEY, 0, 11)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: curriculum.knapsack_rl.offered(6, rows_per_prompt=4), "rows_per_prompt must divide the 6 rows"),
        (lambda: knapsack([0.5] * 4, highest=3), "highest must lie in"),
        (lambda: curriculum.pcl.offered(4, pool_factor=0), "pool_factor"),
        (lambda: curriculum.spo.init(np.zeros(1), np.zeros(1, int), prior_samples=-1), "prior_samples must lie in"),
    ],
)
def test_numbers_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
