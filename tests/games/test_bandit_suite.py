"""EVOLvE's bandits, explorers and their texts against hand-worked histories and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import games
from alignment.games import bandit_text

RNG = np.random.default_rng(3)
KEYS = jax.random.split(jax.random.key(0), 20)
PULLS, SUMS = np.array([2, 1, 5], np.int32), np.array([1.0, 0.0, 4.0], np.float32)


# ------------------------------------------------------------------------------------------------------------ bandits


def test_an_easy_bernoulli_bandit_has_one_good_arm_anywhere():
    means = np.asarray(jax.vmap(lambda key: games.bernoulli_means(key, arms=5, gap=0.5))(KEYS))
    np.testing.assert_allclose(np.sort(means, -1), np.tile([0.25, 0.25, 0.25, 0.25, 0.75], (20, 1)), atol=1e-6)
    assert len(set(means.argmax(-1).tolist())) == 5
    np.testing.assert_allclose(games.minimum_gap(means), 0.5, atol=1e-6)


def test_rewards_have_the_means_and_the_deviation_of_the_arm():
    keys = jax.random.split(jax.random.key(1), 20000)
    coins = jax.vmap(lambda key: games.bernoulli_draw(key, jnp.float32(0.3)))(keys)
    assert set(np.unique(coins)) == {0.0, 1.0} and abs(coins.mean() - 0.3) < 0.02
    normals = jax.vmap(lambda key: games.gaussian_draw(key, jnp.float32(-1.0), deviation=3.0))(keys)
    assert abs(normals.mean() + 1) < 0.1 and abs(normals.std() - 3) < 0.1
    means = jax.vmap(lambda key: games.gaussian_means(key, arms=5, deviation=3.0))(keys)
    assert abs(means.mean()) < 0.1 and abs(means.std() - 3) < 0.1
    # (2 - 0.5)^2 / (2 * 9)
    np.testing.assert_allclose(games.gaussian_hardness(np.float32([2, 0.5, -1]), deviation=3.0), 0.125, rtol=1e-6)


def test_the_grid_is_two_kinds_two_sizes_two_difficulties():
    assert len(games.GRID) == len(set(games.GRID)) == 8
    assert {(s.difficulty, s.horizon) for s in games.GRID} == {("easy", 300), ("hard", 1000)}
    spreads = {(s.kind, s.difficulty, s.spread) for s in games.GRID}
    bernoulli, gaussian = {("easy", 0.5), ("hard", 0.2)}, {("easy", 1.0), ("hard", 3.0)}
    assert spreads == {("bernoulli", *x) for x in bernoulli} | {("gaussian", *x) for x in gaussian}
    assert {s.arms for s in games.GRID} == {5, 20}
    assert [(s.arms, s.horizon) for s in games.CONTEXTUAL_GRID] == [(10, 200), (30, 200)]


def test_the_rewards_of_a_rating_bandit_have_its_rank_and_come_from_its_contexts():
    ratings = RNG.normal(size=(40, 6)).astype(np.float32)
    bandit = games.rating_bandit(ratings, rank=3)
    assert bandit.features.shape == (40, 3) and np.linalg.matrix_rank(bandit.rewards, tol=1e-4) == 3
    solution = np.linalg.lstsq(bandit.features, bandit.rewards, rcond=None)[0]
    np.testing.assert_allclose(bandit.features @ solution, bandit.rewards, atol=1e-4)
    np.testing.assert_allclose(games.rating_bandit(ratings, rank=99).rewards, ratings, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------- explorers


def test_the_guide_is_the_mean_and_the_bonus_worked_out_by_hand():
    value, bonus = games.ucb_guide(PULLS, SUMS)
    np.testing.assert_allclose(value, [0.5, 0.0, 0.8], rtol=1e-6)
    # ln 8 = 2.079442: sqrt(0.5 * 2.079442 / n)
    np.testing.assert_allclose(bonus, [0.721013, 1.019667, 0.456009], rtol=1e-5)
    assert games.ucb_arm(KEYS[0], PULLS, SUMS) == 2  # 1.221, 1.020, 1.256
    assert games.ucb_arm(KEYS[0], PULLS, SUMS, alpha=2.0) == 1  # 1.942, 2.039, 1.712
    assert games.greedy_arm(KEYS[0], PULLS, SUMS) == 2


def test_the_bonus_ignores_the_rewards_and_is_zero_after_one_pull_and_infinite_before():
    value, bonus = games.ucb_guide(PULLS, 3 * SUMS)
    np.testing.assert_allclose(value, 3 * games.ucb_guide(PULLS, SUMS)[0], rtol=1e-6)
    np.testing.assert_array_equal(bonus, games.ucb_guide(PULLS, SUMS)[1])
    value, bonus = games.ucb_guide(np.array([0, 1, 0], np.int32), np.float32([0, 1, 0]))
    np.testing.assert_array_equal(bonus, [np.inf, 0, np.inf])
    np.testing.assert_array_equal(value, [0, 1, 0])


def test_a_greedy_explorer_has_no_bonus():
    """Where the best mean belongs to an arm pulled often, UCB goes elsewhere and the greedy one stays."""
    pulls, sums = np.array([1000, 2], np.int32), np.float32([600, 1])
    assert games.greedy_arm(KEYS[0], pulls, sums) == 0 and games.ucb_arm(KEYS[0], pulls, sums) == 1


@pytest.mark.parametrize("explorer", [games.ucb_arm, games.greedy_arm])
def test_every_arm_is_pulled_once_in_the_first_rounds(explorer):
    run = games.play_bandit(KEYS[0], jnp.linspace(0, 1, 6), explorer=explorer, horizon=6)
    np.testing.assert_array_equal(run.actions, np.arange(6))


def test_linucb_is_ridge_regression_on_each_arms_own_rounds():
    contexts, rewards = RNG.normal(size=(30, 4)).astype(np.float32), RNG.normal(size=30).astype(np.float32)
    arms, x = RNG.integers(3, size=30), RNG.normal(size=4).astype(np.float32)
    a = np.stack([np.eye(4) + contexts[arms == k].T @ contexts[arms == k] for k in range(3)]).astype(np.float32)
    b = np.stack([rewards[arms == k] @ contexts[arms == k] for k in range(3)])
    value, bonus = games.linucb_guide(x, a, b, alpha=0.7)
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(value, np.einsum("d,kde,ke->k", x, inverse, b), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bonus, 0.7 * np.sqrt(np.einsum("d,kde,e->k", x, inverse, x)), rtol=1e-4)
    assert games.linucb_arm(KEYS[0], x, a, b, alpha=0.7) == np.argmax(value + bonus)
    unit = x / np.linalg.norm(x)
    np.testing.assert_allclose(
        games.linucb_guide(unit, np.tile(np.eye(4, dtype="f"), (3, 1, 1)), 0 * b)[1], 0.5, rtol=1e-6
    )


def test_ties_of_linucb_are_broken_at_random():
    x, a, b = np.float32([1, 0]), np.tile(np.eye(2, dtype=np.float32), (3, 1, 1)), np.zeros((3, 2), np.float32)
    b[2, 0] = -1.0  # behind the other two
    drawn = {int(games.linucb_arm(key, x, a, b)) for key in KEYS}
    assert drawn == {0, 1}


def test_runs_know_what_they_pulled_and_a_good_explorer_regrets_less():
    means = jnp.asarray([0.25, 0.75, 0.25, 0.25, 0.25])
    explorers = {"ucb": games.ucb_arm, "thompson": games.thompson_arm, "uniform": games.uniform_arm}
    keys = jax.random.split(jax.random.key(2), 32)
    ends = {}
    for name, explorer in explorers.items():
        run = jax.jit(jax.vmap(lambda key, e=explorer: games.play_bandit(key, means, explorer=e, horizon=150)))(keys)
        assert run.actions.shape == run.rewards.shape == (32, 150) and run.actions.dtype == jnp.int32
        ends[name] = games.cumulative_regret(run.actions, jnp.tile(means, (32, 1)))[:, -1].mean()
    assert abs(ends["uniform"] - 150 * 0.5 * 4 / 5) < 2  # the slope gap (K - 1) / K
    assert ends["ucb"] < ends["uniform"] / 2 and ends["thompson"] < ends["uniform"] / 2


def test_linucb_learns_who_likes_what():
    bandit = games.rating_bandit(RNG.normal(size=(50, 3)).astype("f") @ RNG.normal(size=(3, 5)).astype("f"), rank=3)
    bandit = bandit._replace(features=7 * bandit.features)  # rows of U are short among fifty users
    run = games.play_contextual_bandit(KEYS[0], *bandit, horizon=200)
    np.testing.assert_allclose(run.rewards, np.asarray(bandit.rewards)[run.users, run.actions])
    regret = np.asarray(games.contextual_regret(run.users, run.actions, bandit.rewards))
    assert np.all(np.diff(regret) >= 0) and regret[-1] - regret[99] < 0.25 * regret[99]


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: games.bernoulli_means(KEYS[0], arms=1), r"arms must be an integer in \[2, inf\)"),
        (lambda: games.bernoulli_means(KEYS[0], gap=1.5), r"gap must lie in \(0, 1\]"),
        (lambda: games.play_bandit(KEYS[0], jnp.ones(2), horizon=0), "horizon must be an integer"),
        (lambda: games.rating_bandit(np.ones((3, 2), "f"), rank=0), "rank must be an integer"),
        (lambda: bandit_text.scene("doors", 3), "scene must be one of buttons, videos"),
        (lambda: bandit_text.scene("clothes", 21), r"\[2, 20\]"),
        (lambda: bandit_text.raw_history(bandit_text.scene("buttons", 2), [2], [0.0]), r"actions must lie in \[0, 2\)"),
        (lambda: bandit_text.raw_history(bandit_text.scene("buttons", 2), [1], []), "one reward per action"),
    ],
)
def test_what_is_wrong_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --------------------------------------------------------------------------------------------------------------- text


ITEMS = bandit_text.scene("clothes", 3)
ACTIONS, REWARDS = [0, 2, 2, 2, 2, 0, 2], [1, 1, 1, 1, 1, 0, 0]


def test_histories_tell_the_same_in_three_ways():
    assert bandit_text.raw_history(ITEMS, ACTIONS[:2], [0.5, -1.25]) == "coat: 0.5\nskirt: -1.25\n"
    summary = bandit_text.summary_history(ITEMS, ACTIONS, REWARDS)
    assert summary == "coat: 2 times, mean 0.50\nshirt: 0 times, mean 0.00\nskirt: 5 times, mean 0.80\n"
    lines = bandit_text.guided_history(ITEMS, ACTIONS, REWARDS).splitlines()
    # sqrt(0.5 * ln 7 / 2) = 0.697, sqrt(0.5 * ln 7 / 5) = 0.441
    assert lines == [
        "coat: 2 times, value 0.50, bonus 0.70",
        "shirt: 0 times, value 0.00, bonus inf",
        "skirt: 5 times, value 0.80, bonus 0.44",
    ]
    assert set(bandit_text.HISTORIES) == {"raw", "summary", "guided"}


def test_a_contextual_history_tells_the_guides_of_each_round():
    plain = bandit_text.contextual_history(ITEMS, ["young"], [1], [0.25])
    assert plain == "context: young\nchoice: shirt\nreward: 0.25\n"
    guided = bandit_text.guided_contextual_history(ITEMS, ["young"], [([0, 1, 2], [0.5] * 3)], [1], [0.25])
    assert guided.splitlines()[2] == "shirt: value 1.00, bonus 0.50"
    assert [line for line in guided.splitlines() if "value" not in line] == plain.splitlines()


def test_prompts_end_in_the_question_and_examples_come_before():
    text = bandit_text.prompt(ITEMS, "history\n")
    assert text.startswith(ITEMS.story) and "coat, shirt, skirt" in text and text.endswith("history\nNext item:")
    assert bandit_text.prompt(ITEMS, "", story=False) == "Next item:"
    assert bandit_text.with_examples([("p:", "coat")] * 5, "q:") == "p: coat\n\n" * 5 + "q:"
    for name in bandit_text.SCENES:
        assert len(set(bandit_text.scene(name, 20).names)) == 20


def test_an_answer_is_an_arm_or_a_flagged_random_one():
    rng = np.random.default_rng(0)
    assert bandit_text.read_arm(ITEMS, "  Shirt \n", rng) == (1, False)
    wrong = [bandit_text.read_arm(ITEMS, "a shirt", rng) for _ in range(40)]
    assert all(flag for _, flag in wrong) and {arm for arm, _ in wrong} == {0, 1, 2}


def test_explorers_take_hyperparameters_by_partial():
    careful = games.play_bandit(
        KEYS[0], jnp.asarray([0.2, 0.8]), explorer=functools.partial(games.ucb_arm, alpha=0.0), horizon=9
    )
    greedy = games.play_bandit(KEYS[0], jnp.asarray([0.2, 0.8]), explorer=games.greedy_arm, horizon=9)
    np.testing.assert_array_equal(careful.actions, greedy.actions)
