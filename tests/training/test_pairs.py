"""Pairs out of rollouts: what is chosen, and that the rows made of it score as the groups did."""

import jax
import numpy as np
import pytest

from alignment import losses, statistics
from alignment.models import decoder
from alignment.training import pairs, rollouts

GROUP, TIME, PROMPTS = 4, 5, 3
MODEL = decoder.build(
    decoder.DecoderConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2, max_position_embeddings=32
    )
)


def groups(seed=0, **columns):
    rng = np.random.default_rng(seed)
    tokens, mask = rollouts.pad_prompts([[5, 6, 7], [8], [9, 3]], 4, 0)
    lengths = rng.integers(1, TIME + 1, PROMPTS * GROUP)
    given = np.arange(TIME) < lengths[:, None]
    logps = rng.normal(size=given.shape).astype(np.float32)
    rollout = rollouts.Rollout(rng.integers(2, 20, given.shape), given, logps)
    batch = rollouts.to_rows(tokens, mask, rollout, GROUP, np.arange(PROMPTS))
    batch["rewards"] = rng.normal(size=(PROMPTS, GROUP)).astype(np.float32)
    return batch | columns


def test_the_best_and_the_worst_are_taken_and_of_equals_the_first():
    scores = np.array([[0.0, 2.0, -1.0, 2.0], [1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 1.0, 2.0], [-np.inf, 0.0, 0.0, 0.0]])
    chosen, rejected = pairs.best_and_worst(scores, {})
    np.testing.assert_array_equal(chosen, [1, 0, 0, 1])
    np.testing.assert_array_equal(rejected, [2, 1, 1, 0])


def test_a_winner_must_reach_the_floor_and_the_policys_own_need_a_smaller_lead():
    """The filter of practical DNO on its scale of six points: at least 5, 2 apart, 1 where the winner is a sample."""
    scores = [
        [5.5, 3.0, 4.0, 4.4],
        [5.0, 4.5, 4.2, 4.9],
        [4.0, 3.0, 3.5, 6.0],
        [3.0, 4.5, 4.6, 6.0],
        [4.9, 0.0, 1.0, 2.0],
    ]
    rng = np.random.default_rng(0)
    shape = (5 * GROUP, TIME)
    rollout = rollouts.Rollout(rng.integers(2, 20, shape), np.ones(shape, bool), np.zeros(shape, np.float32))
    tokens, mask = rollouts.pad_prompts([[5]] * 5, 4, 0)
    batch = rollouts.to_rows(tokens, mask, rollout, GROUP, np.arange(5))
    demonstrations = np.zeros((5, GROUP, TIME), bool)
    demonstrations[:, -1] = True  # the last of each group
    batch |= {"rewards": np.array(scores, np.float32), "demonstration_mask": demonstrations}
    made = pairs.of_rollout(batch, pairs.best_and_worst, margin=2.0, margin_of_own=1.0, floor=5.0)
    # A sample 2.5 ahead; one 0.8 ahead; the demonstration 3 and 3 ahead; a sample far ahead but below the floor.
    assert made["valid"].tolist() == [True, False, True, True, False]
    batch["rewards"][2] = [4.5, 4.4, 4.3, 6.0]  # the demonstration leads by less than 2
    made = pairs.of_rollout(batch, pairs.best_and_worst, margin=2.0, margin_of_own=1.0, floor=5.0)
    assert made["valid"].tolist() == [True, False, False, True, False]
    batch["rewards"][1] = [5.0, 4.5, 4.0, 4.9]  # the sample leads by 1
    made = pairs.of_rollout(batch, pairs.best_and_worst, margin=2.0, margin_of_own=1.0, floor=5.0)
    assert made["valid"].tolist() == [True, True, False, True, False]
    assert pairs.of_rollout(batch, pairs.best_and_worst, margin=2.0)["valid"].tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]
    with pytest.raises(ValueError, match="pair_floor must be a number, got nan"):
        pairs.of_rollout(batch, pairs.best_and_worst, floor=np.nan)
    with pytest.raises(ValueError, match=r"pair_margin_of_own must lie in \[0, inf\), got -1"):
        pairs.of_rollout(batch, pairs.best_and_worst, margin_of_own=-1)


def test_two_samples_swapped_with_their_scores_are_the_same_pair():
    scores = np.array([[0.3, 0.7]])
    (first,), (second,) = pairs.best_and_worst(scores, {})
    (first_swapped,), (second_swapped,) = pairs.best_and_worst(scores[:, ::-1], {})
    assert (first, second) == (1 - first_swapped, 1 - second_swapped) == (1, 0)


def scored(params, batch, names, sides):
    computed = statistics.compute(statistics.needs_of(names), MODEL, params, {}, batch)
    return [np.asarray(statistics.deliver(n, sides, computed, batch)) for n in names]


def test_a_pair_has_the_log_probs_that_its_completions_had_in_their_group():
    """The opponents follow as samples, and a completion that stands in a row twice does not see itself."""
    opponents = np.tile([False, True, False, True], (PROMPTS, 1))
    batch = groups(opponents=opponents)
    params = jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(0)))
    (each,) = scored(params, batch, ["policy_logps"], statistics.EACH)
    each, at = each.reshape(PROMPTS, GROUP), np.arange(PROMPTS)
    made = pairs.of_rollout(batch, pairs.best_and_worst, with_samples=True)
    names = ["policy_chosen_logps", "policy_rejected_logps", "policy_samples_logps", "behaviour_chosen_logps"]
    chosen, rejected, samples, behaviour = scored(params, made, names, pairs.SIDES)
    best, worst = batch["rewards"].argmax(1), batch["rewards"].argmin(1)
    np.testing.assert_allclose(chosen, each[at, best], rtol=1e-5)
    np.testing.assert_allclose(rejected, each[at, worst], rtol=1e-5)
    np.testing.assert_allclose(samples, each[:, 1::2], rtol=1e-5)
    np.testing.assert_allclose(behaviour, batch["behaviour_token_logps"][at, best].sum(-1), rtol=1e-5)
    assert any(p in (1, 3) for p in (*best, *worst))  # or nothing stood there twice
    np.testing.assert_allclose(made["margins"], batch["rewards"].max(1) - batch["rewards"].min(1))
    assert made["valid"].all() and made["ids"].tolist() == [0, 1, 2]


def test_a_judges_win_rates_decide_before_rewards_do_and_go_along():
    rates = np.array([[0.1, 0.2, 0.9, 0.3]] * PROMPTS, np.float32)
    preferences = np.random.default_rng(0).random((PROMPTS, GROUP, GROUP)).astype(np.float32)
    made = pairs.of_rollout(groups(win_rates=rates, preferences=preferences), pairs.best_and_worst)
    np.testing.assert_array_equal(made["chosen_win_rates"], np.float32(0.9))
    np.testing.assert_array_equal(made["rejected_win_rates"], np.float32(0.1))
    np.testing.assert_array_equal(made["preference_proportions"], preferences[:, 2, 0])
    assert set(pairs.COLUMNS) | set(pairs.OF_A_JUDGE) <= set(made)


def test_pairs_that_lie_closer_than_the_margin_or_have_no_valid_side_count_for_nothing():
    batch = groups()
    batch["rewards"] = np.array([[0.0, 1, 0.5, 0.5], [0, 0.1, 0.1, 0.1], [0, 1, 0.5, 0.5]], np.float32)
    batch["valid"][2, 1] = False
    assert pairs.of_rollout(batch, pairs.best_and_worst, margin=0.5)["valid"].tolist() == [True, False, False]
    assert pairs.of_rollout(batch, pairs.best_and_worst)["valid"].tolist() == [True, True, False]


def test_a_demonstration_is_chosen_over_the_first_sample_whatever_they_score():
    shown = np.zeros((PROMPTS, GROUP, TIME), bool)
    shown[:, -1, 0] = True
    batch = groups(demonstration_mask=shown)
    made = pairs.of_rollout(batch, pairs.demonstration_and_sample)
    np.testing.assert_array_equal(made["targets"], batch["targets"][:, [GROUP - 1, 0]])
    with pytest.raises(ValueError, match=r"set config\.rollout\.demonstrations"):
        pairs.of_rollout(groups(), pairs.demonstration_and_sample)


@pytest.mark.parametrize(
    "batch, settings, words",
    [
        (lambda: rollouts.one_per_row(groups()), {}, "a pair needs a group of at least 2"),
        (groups, {"margin": -1.0}, r"must lie in \[0, inf\)"),
        (groups, {"margin": float("nan")}, r"must lie in \[0, inf\)"),
        (lambda: groups(opponents=np.eye(3, GROUP, dtype=bool)[[0, 0, 1]] | np.eye(3, GROUP, dtype=bool)),
         {"with_samples": True}, r"equally many of them, at least one; got \[1, 2, 2\]"),
    ],
)  # fmt: skip
def test_groups_without_a_pair_are_refused(batch, settings, words):
    with pytest.raises(ValueError, match=words):
        pairs.of_rollout(batch(), pairs.best_and_worst, **settings)


def test_any_loss_on_pairs_reads_them():
    """The columns of a pair are those that the losses on stored pairs ask for."""
    names = statistics.arguments_of(losses.sppo)
    for name in names:
        statistics.check_available(name, pairs.SIDES[:2], [*pairs.COLUMNS, *pairs.OF_A_JUDGE], "sppo")
