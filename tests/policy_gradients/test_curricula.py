"""Value of rollouts, angle concentration, the sliding window, and the choices made by them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import policy_gradients as pg
from alignment.policy_gradients import selection


def mixed(p, n):
    p = jnp.atleast_1d(jnp.asarray(p, jnp.float32))
    return np.asarray(pg.mixed_group_probability(p, jnp.broadcast_to(jnp.asarray(n), p.shape)))


def worth(p, counts):
    return float(np.sum(np.asarray(pg.knapsack_value(jnp.asarray(p, jnp.float32), jnp.asarray(counts)))))


# --- Knapsack RL -----------------------------------------------------------------------------------------------------


def test_the_probability_of_a_mixed_group_is_that_of_all_its_outcomes():
    for p in (0.1, 0.5, 0.8):
        for n in (1, 2, 4):
            outcomes = [o for o in itertools.product((0, 1), repeat=n) if 0 < sum(o) < n]
            exact = sum(np.prod([p if x else 1 - p for x in o]) for o in outcomes)
            np.testing.assert_allclose(mixed(p, n), exact, atol=1e-6)


def test_the_probability_is_symmetric_and_zero_where_nothing_can_be_mixed():
    p = np.linspace(0, 1, 11)
    np.testing.assert_allclose(mixed(p, 6), mixed(1 - p, 6), atol=1e-6)
    np.testing.assert_array_equal(mixed([0.0, 1.0], 6), 0)
    np.testing.assert_allclose(mixed(p, 1), 0.0, atol=1e-6)


def test_expected_draws_until_both_outcomes_are_seen():
    """1 + sum over N of P(not mixed after N) = 1/p + 1/(1-p) - 1."""
    for p in (0.2, 0.5, 0.7):
        waiting = 1 + np.sum(1 - mixed(np.full(400, p), np.arange(1, 401)))
        np.testing.assert_allclose(waiting, 1 / p + 1 / (1 - p) - 1, rtol=1e-4)


def test_information_gain_is_largest_at_one_third():
    p = np.linspace(0, 1, 3001)
    gain = pg.knapsack_information_gain(jnp.asarray(p, jnp.float32), jnp.ones(p.shape, bool))
    np.testing.assert_allclose(p[np.argmax(gain)], 1 / 3, atol=2e-3)


def test_information_gain_is_the_first_order_rise_of_a_logit_step():
    z, step = jnp.log(0.3 / 0.7), 1e-2
    rise = jax.nn.sigmoid(z + step * (1 - 0.3)) - 0.3
    gain = pg.knapsack_information_gain(jnp.array([0.3]), jnp.array([True]))
    np.testing.assert_allclose(rise / step, gain[0], rtol=1e-2)


def test_value_is_concave_in_the_rollouts():
    for p in (0.05, 0.5, 0.9):
        values = np.asarray(pg.knapsack_value(jnp.full(30, p), jnp.arange(1, 31)), float)
        assert (np.diff(values, n=2) <= 1e-7).all()


@pytest.mark.parametrize("seed", range(6))
def test_greedy_and_dynamic_programming_are_worth_the_same_and_uniform_no_more(seed):
    rng = np.random.default_rng(seed)
    p, limits = rng.beta(0.5, 0.5, 7), {"lowest": 2, "highest": 12}
    total = int(rng.integers(14, 60))
    greedy = selection.knapsack_allocation(p, total=total, **limits)
    exact = selection.knapsack_allocation_exact(p, total=total, **limits)
    for counts in (greedy, exact):
        assert counts.sum() <= total and counts.min() >= 2 and counts.max() <= 12
    np.testing.assert_allclose(worth(p, greedy), worth(p, exact), rtol=1e-5)
    uniform = np.full(7, total // 7)
    assert worth(p, greedy) >= worth(p, np.minimum(uniform, 12)) - 1e-6


def test_the_allocation_is_the_best_of_all_allocations():
    p, total = np.array([0.1, 0.4, 0.9]), 11
    best = max(worth(p, np.array(c)) for c in itertools.product(range(1, 8), repeat=3) if sum(c) <= total)
    got = selection.knapsack_allocation(p, total=total, lowest=1, highest=7)
    np.testing.assert_allclose(worth(p, got), best, rtol=1e-6)


def test_equal_prompts_share_evenly_up_to_rounding():
    counts = selection.knapsack_allocation(np.full(5, 0.3), total=5 * 8 + 3)
    assert counts.sum() == 43 and counts.max() - counts.min() == 1


def test_prompts_that_look_impossible_keep_the_least_unless_clamped():
    p = np.array([0.0, 1.0, 0.5])
    np.testing.assert_array_equal(selection.knapsack_allocation(p, total=40, highest=20), [2, 2, 20])
    assert selection.knapsack_allocation(p, total=40, highest=20, clamp=0.05)[0] > 2


@pytest.mark.parametrize(
    "change,message",
    [
        ({"total": 5}, r"total must .*\[6, inf\)"),
        ({"lowest": 9, "highest": 8}, r"highest must .*\[9, inf\)"),
        ({"clamp": 0.6}, r"clamp must .*\[0, 0.5\]"),
        ({"success_rates": [0.5, 1.5, 0.1]}, "success_rates must"),
    ],
)
@pytest.mark.parametrize("solver", [selection.knapsack_allocation, selection.knapsack_allocation_exact])
def test_impossible_budgets_say_what_is_wrong(solver, change, message):
    with pytest.raises(ValueError, match=message):
        solver(**{"success_rates": [0.5, 0.2, 0.1], "total": 30, **change})


# --- PCL -------------------------------------------------------------------------------------------------------------


def test_a_pool_of_one_batch_is_used_whole():
    chosen = selection.smallest(pg.pcl_distances(jnp.array([0.9, 0.1, 0.5]), jnp.ones(3, bool)), 3)
    assert sorted(chosen.tolist()) == [0, 1, 2]


def test_true_success_rates_choose_the_prompts_of_most_variance_and_most_mixed_groups():
    p = np.random.default_rng(0).random(40)
    chosen = np.asarray(selection.smallest(pg.pcl_distances(jnp.asarray(p, jnp.float32), jnp.ones(40, bool)), 10))
    for merit in (p * (1 - p), mixed(p, 16)):
        left_out = np.delete(merit, chosen)
        assert merit[chosen].min() >= left_out.max() - 1e-6


def test_prompts_that_are_not_there_are_chosen_last():
    distances = pg.pcl_distances(jnp.array([0.5, 0.1, 0.9]), jnp.array([False, True, True]))
    assert set(selection.smallest(distances, 2).tolist()) == {1, 2}


def test_the_value_loss_is_zero_if_and_only_if_the_values_are_the_empirical_means():
    ids, rewards = jnp.array([3, 1, 3, 1, 3]), jnp.array([1.0, 0, 0, 0, 1])
    valid, means = jnp.ones(5, bool), jnp.array([2 / 3, 0, 2 / 3, 0, 2 / 3])
    np.testing.assert_allclose(pg.pcl_value_loss(means, rewards, ids, valid), 0.0, atol=1e-12)
    off = pg.pcl_value_loss(means.at[1].add(0.1), rewards, ids, valid)
    np.testing.assert_allclose(off, [0, 0.01, 0, 0, 0], atol=1e-6)


# --- GAIN-RL ---------------------------------------------------------------------------------------------------------


def prompt(seed=0, size=6, width=5):
    x = np.random.default_rng(seed).normal(size=(size, width))
    question = np.arange(size) >= 3
    return jnp.asarray(x, jnp.float32), jnp.asarray(question), jnp.asarray(~question)


def test_parallel_hidden_states_have_concentration_one_on_both_counts():
    _, question, context = prompt()
    hidden = jnp.outer(jnp.arange(1.0, 7.0), jnp.array([1.0, -2.0, 0.5]))
    np.testing.assert_allclose(pg.angle_concentration_within(hidden, question), 1.0, rtol=1e-6)
    np.testing.assert_allclose(pg.angle_concentration_between(hidden, question, context), 1.0, rtol=1e-6)
    np.testing.assert_allclose(pg.angle_concentration(hidden, question, context), 2.0, rtol=1e-6)


def test_concentrations_are_means_of_the_table_of_cosines():
    hidden, question, context = prompt()
    u = np.asarray(hidden) / np.linalg.norm(hidden, axis=-1, keepdims=True)
    cosines, q, c = u @ u.T, np.asarray(question), np.asarray(context)
    own = cosines[np.ix_(q, q)]
    np.testing.assert_allclose(
        pg.angle_concentration_within(hidden, question), own[np.tril_indices(q.sum())].mean(), rtol=1e-5
    )
    got = pg.angle_concentration_between(hidden, question, context)
    np.testing.assert_allclose(got, cosines[np.ix_(q, c)].mean(), rtol=1e-5)


def test_concentration_forgets_lengths_of_the_states_and_rotations():
    hidden, *masks = prompt(1)
    expected = pg.angle_concentration(hidden, *masks)
    rng = np.random.default_rng(2)
    scaled = hidden * jnp.asarray(rng.gamma(1.0, size=(6, 1)), jnp.float32)
    rotation = jnp.asarray(np.linalg.qr(rng.normal(size=(5, 5)))[0], jnp.float32)
    for other in (scaled, hidden @ rotation, 1e25 * hidden):
        np.testing.assert_allclose(pg.angle_concentration(other, *masks), expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_norm_of_a_linear_layer_is_a_sum_over_pairs_of_its_inputs_products():
    """The reason to look at angles: ||sum_i g_i x_i^T||^2 = sum_ij (g_i.g_j)(x_i.x_j)."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    with jax.enable_x64(True):
        loss = lambda w: jnp.sum(jnp.square(jnp.asarray(x) @ w.T - target)) / 2  # noqa: E731
        w = jnp.asarray(rng.normal(size=(3, 4)))
        gradient, g = np.asarray(jax.grad(loss)(w)), x @ np.asarray(w).T - target
    np.testing.assert_allclose(np.sum(gradient**2), np.sum((g @ g.T) * (x @ x.T)), rtol=1e-10)


def test_the_window_never_goes_back_and_moves_by_at_most_n():
    rng = np.random.default_rng(0)
    accuracies, concentrations = jnp.asarray(rng.random(200)), jnp.asarray(rng.uniform(-1, 2, 200))
    centers = jnp.asarray(100 * rng.random(200))
    moved = np.asarray(pg.gain_rl_next_center(centers, accuracies, concentrations, num_samples=50)) - centers
    assert moved.min() >= 0 and moved.max() <= 50 + 1e-3 and moved.max() > 40


def test_prompts_are_ranked_from_the_most_concentrated_and_drawn_around_the_center():
    np.testing.assert_array_equal(selection.ranks(jnp.array([0.1, 0.9, 0.5, 0.9])), [3, 0, 2, 1])
    weights = pg.gain_rl_sampling_weights(jnp.arange(100), jnp.full(100, 30.0), sigma=5.0)
    drawn = np.asarray(selection.draw_without_replacement(jax.random.key(0), weights, 10))
    assert len(set(drawn.tolist())) == 10 and np.abs(drawn - 30).max() < 25


def test_a_window_past_the_data_still_draws():
    weights = pg.gain_rl_sampling_weights(jnp.arange(10), jnp.full(10, 1e6))
    assert len(set(selection.draw_without_replacement(jax.random.key(0), weights, 4).tolist())) == 4


def test_draws_follow_the_weights():
    weights = jnp.array([1.0, 2.0, 5.0, 0.0])
    first = jax.vmap(lambda k: selection.draw_without_replacement(k, weights, 2))(
        jax.random.split(jax.random.key(1), 4000)
    )
    first = np.asarray(first)
    np.testing.assert_allclose(np.bincount(first[:, 0], minlength=4) / 4000, [0.125, 0.25, 0.625, 0.0], atol=0.03)
    assert (first != 3).all()
    after_the_largest = first[first[:, 0] == 2, 1]
    np.testing.assert_allclose((after_the_largest == 1).mean(), 2 / 3, atol=0.04)


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_that_is_not_there_is_an_error(count):
    for choose in (
        lambda n: selection.smallest(jnp.ones(3), n),
        lambda n: selection.draw_without_replacement(jax.random.key(0), jnp.ones(3), n),
    ):
        with pytest.raises(ValueError, match="count must"):
            choose(count)
