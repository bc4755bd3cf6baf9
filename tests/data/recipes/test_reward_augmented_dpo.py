"""Reward-augmented relabelling: two pairs from one, each with its goal."""

import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses
from alignment.data import formats
from alignment.data.recipes import reward_augmented_dpo as recipe

PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad", "chosen_score": 8, "rejected_score": 3}


def relabelled(conditioned=recipe.short_prompt, **changes):
    return recipe.reward_augmented_relabel(**{**PAIR, **changes}, conditioned=conditioned)


def test_each_pair_gives_the_pair_and_its_reverse_under_their_goals():
    assert relabelled() == (
        {"prompt": "[8] p", "chosen": "good", "rejected": "bad"},
        {"prompt": "[3] p", "chosen": "bad", "rejected": "good"},
    )


def test_the_goal_is_printed_as_a_whole_number_where_it_is_one_in_text_and_in_messages():
    assert recipe.short_prompt("p", 8.0) == "[8] p" and recipe.short_prompt("p", 7.5) == "[7.5] p"
    for record, goal in zip(relabelled(recipe.system_prompt, rejected_score=2.5), ("8", "2.5"), strict=True):
        (system, user) = record["prompt"]
        assert system["role"] == "system" and f"score of {goal} " in system["content"] and user["content"] == "p"


def test_chosen_has_goal_conditioned_reward_zero_and_rejected_minus_the_squared_gap():
    score = {"good": 8.0, "bad": 3.0}
    for record, goal in zip(relabelled(), (8.0, 3.0), strict=True):
        sides = jnp.array([score[record["chosen"]], score[record["rejected"]]])
        np.testing.assert_array_equal(recipe.goal_conditioned_reward(sides, jnp.full(2, goal)), [0.0, -25.0])


def test_goal_conditioned_reward_by_hand_and_its_shapes():
    np.testing.assert_allclose(
        recipe.goal_conditioned_reward(jnp.array([1.0, 4.0]), jnp.array([3.0, 3.5])), [-4, -0.25]
    )
    with pytest.raises(AssertionError):
        recipe.goal_conditioned_reward(jnp.ones(2), jnp.ones(3))
    with pytest.raises(AssertionError):
        recipe.goal_conditioned_reward(jnp.ones(2, int), jnp.ones(2, int))


def dpo_of(records, logps):
    """dpo of each record against a reference of 0, under log-probs by (prompt, answer)."""
    pick = lambda side: jnp.array([logps[r["prompt"], r[side]] for r in records])  # noqa: E731
    return losses.dpo(pick("chosen"), pick("rejected"), jnp.zeros(len(records)), jnp.zeros(len(records)), beta=0.7)


@pytest.mark.parametrize("margin", [-3.0, 0.0, 0.4, 5.0])
def test_equal_scores_contradict_each_other_and_cost_at_least_two_log_two(margin):
    records = relabelled(rejected_score=8)
    assert records[0]["prompt"] == records[1]["prompt"]
    total = float(dpo_of(records, {("[8] p", "good"): margin, ("[8] p", "bad"): 0.0}).sum())
    assert total >= 2 * np.log(2) - 1e-6
    assert (total == pytest.approx(2 * np.log(2), abs=1e-6)) == (margin == 0)


def test_without_the_goal_the_two_are_dpo_and_flipped_dpo():
    records = relabelled(conditioned=lambda prompt, goal: prompt)
    got = dpo_of(records, {("p", "good"): -1.0, ("p", "bad"): -2.0})
    np.testing.assert_allclose(got, np.logaddexp(0, [-0.7, 0.7]), rtol=1e-6)


def test_records_double_and_ties_and_contradictions_are_dropped_and_counted():
    pairs = [PAIR, PAIR | {"rejected_score": 8}, PAIR | {"chosen_score": 2}, PAIR | {"prompt": "q"}]
    out, counts = recipe.records(pairs, recipe.short_prompt)
    assert counts == {"pairs_read": 4, "dropped_ties": 1, "dropped_contradictions": 1, "pairs": 4}
    assert [e.prompt for e in formats.from_records(out, "pairs")] == ["[8] p", "[3] p", "[8] q", "[3] q"]
    assert len(formats.from_records(recipe.records(pairs)[0], "pairs")[0].prompt) == 2


def test_scores_are_brought_to_one_to_ten():
    assert [recipe.to_scale(x, -6.0, 3.0) for x in (-9.0, -6.0, -5.6, 0.0, 3.0, 4.0)] == [1, 1, 1, 7, 10, 10]
    with pytest.raises(ValueError, match="less than"):
        recipe.to_scale(0.0, 1.0, 1.0)
