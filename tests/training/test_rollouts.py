"""Rollouts: rows in which a group shares its prompt score what the sampler drew, and engines are held to their word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import statistics
from alignment.models import decoder
from alignment.training import rollouts

GROUP, TIME, PAD, END = 3, 6, 0, 1
CONFIG = decoder.DecoderConfig(
    vocab_size=24, hidden_size=32, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2,
    max_position_embeddings=32,
)  # fmt: skip
MODEL = decoder.build(CONFIG)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12]]


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(0)))


def rolled_out(params, **settings):
    tokens, mask = rollouts.pad_prompts(PROMPTS, 5, PAD)
    engine = rollouts.sampling_engine(
        MODEL, group_size=GROUP, completion_length=TIME, eos_id=END, pad_id=PAD, **settings
    )
    rollout = rollouts.check(engine(params, tokens, mask, jax.random.key(1)), len(PROMPTS), GROUP, TIME)
    return rollout, rollouts.to_rows(tokens, mask, rollout, GROUP, np.array([10, 11, 12]))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_scorer_gives_a_group_in_one_row_the_log_probs_it_was_drawn_with(params, temperature):
    rollout, batch = rolled_out(params, temperature=temperature)
    assert not rollout.mask.all() and (rollout.mask.sum(1) > 1).any(), "some end early, some do not"
    needs = statistics.needs_of(["policy_token_logps"])
    computed = jax.jit(lambda p, b: statistics.compute(needs, MODEL, p, {}, b, temperature=temperature))(params, batch)
    got = statistics.deliver("policy_token_logps", statistics.EACH, computed, batch)
    assert got.shape == (len(PROMPTS) * GROUP, TIME)
    np.testing.assert_allclose(got, np.where(rollout.mask, rollout.logps, 0.0), atol=1e-4)
    np.testing.assert_array_equal(statistics.deliver("mask", statistics.EACH, computed, batch), rollout.mask)
    behaviour = statistics.deliver("behaviour_token_logps", statistics.EACH, computed, batch)
    np.testing.assert_allclose(behaviour, got, atol=1e-4)


def test_names_without_a_side_stand_for_all_completions_and_responses_for_groups(params):
    _, batch = rolled_out(params)
    batch["rewards"] = np.arange(9.0).reshape(3, 3)
    deliver = lambda name: statistics.deliver(name, statistics.EACH, {}, batch)  # noqa: E731
    np.testing.assert_array_equal(deliver("rewards"), np.arange(9.0))
    np.testing.assert_array_equal(deliver("group_ids"), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(deliver("prompt_ids"), [10, 10, 10, 11, 11, 11, 12, 12, 12])
    np.testing.assert_array_equal(deliver("lengths"), batch["mask"].sum(-1).reshape(-1))
    assert deliver("responses_mask").shape == (3, GROUP, TIME)


def test_joined_batches_keep_their_groups_apart(params):
    _, batch = rolled_out(params)
    both = rollouts.join([batch, rollouts.take(batch, np.array([2, 0]))])
    np.testing.assert_array_equal(both["group_ids"][:, 0], np.arange(5))
    np.testing.assert_array_equal(both["prompt_ids"][:, 0], [10, 11, 12, 12, 10])
    np.testing.assert_array_equal(both["tokens"][3], batch["tokens"][2])


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda r: r._replace(tokens=r.tokens[:, :-1]), "tokens of shape"),
        (lambda r: r._replace(mask=np.zeros_like(r.mask)), "an empty completion"),
        (lambda r: r._replace(mask=r.mask & (np.arange(TIME) != 2) | (np.arange(TIME) == 3)), "a gap in its mask"),
        (lambda r: r._replace(logps=np.full_like(r.logps, -np.inf)), "not finite"),
    ],
)
def test_an_engine_that_breaks_its_contract_is_told_how(params, change, message):
    rollout, _ = rolled_out(params)
    with pytest.raises(ValueError, match=message):
        rollouts.check(change(rollout), len(PROMPTS), GROUP, TIME)


def test_prompts_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="prompt 1 has 6 tokens"):
        rollouts.pad_prompts([[1], [1] * 6], 5, PAD)
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens"):
        rollouts.pad_prompts([[]], 5, PAD)


def test_importance_weights_are_one_on_policy_capped_above_and_deaf_behind_the_mask():
    trainer = jnp.array([[-1.0, -1.0, jnp.nan]])
    mask = jnp.array([[True, True, False]])
    engine = jnp.array([[-1.0, -4.0, -1.0]])
    got = rollouts.truncated_importance_weights(trainer, engine, mask, 2.0)
    np.testing.assert_allclose(got, [[1.0, 2.0, 1.0]])
    low = rollouts.truncated_importance_weights(engine, trainer, mask, 2.0)
    np.testing.assert_allclose(low, [[1.0, np.exp(-3.0), 1.0]], rtol=1e-6)
    with pytest.raises(ValueError, match="importance_cap"):
        rollouts.truncated_importance_weights(trainer, engine, mask, 0.0)


def test_demonstrations_take_the_last_places_of_each_group(params):
    rollout, _ = rolled_out(params)
    demonstrations = [[4, END], [5, 6, END], [END]]
    got, shown = rollouts.with_demonstrations(rollout, demonstrations, GROUP, 1)
    for prompt, ids in enumerate(demonstrations):
        row = prompt * GROUP + GROUP - 1
        assert got.tokens[row][got.mask[row]].tolist() == ids
        assert shown[row].sum() == len(ids) and not got.logps[row].any()
        before = slice(prompt * GROUP, row)
        np.testing.assert_array_equal(got.tokens[before], rollout.tokens[before])
        assert not shown[before].any()
    rollouts.check(got, len(PROMPTS), GROUP, TIME)
    some, shown = rollouts.with_demonstrations(rollout, [[4, END], None, None, [7, END], None, [8, END]], GROUP, 2)
    assert shown.any(axis=1).tolist() == [False, True, False, False, False, True, False, False, True]
    np.testing.assert_array_equal(some.tokens[~shown.any(axis=1)], rollout.tokens[~shown.any(axis=1)])
    for count in (0, GROUP):
        with pytest.raises(ValueError, match="leaves nothing that was sampled"):
            rollouts.with_demonstrations(rollout, demonstrations, GROUP, count)
    with pytest.raises(ValueError, match="prompt 0 has 7 tokens"):
        rollouts.with_demonstrations(rollout, [[2] * 7, *demonstrations[1:]], GROUP, 1)


def test_rows_of_one_prompt_are_one_group(params):
    tokens, mask = rollouts.pad_prompts([PROMPTS[0], PROMPTS[1], PROMPTS[0]], 5, PAD)
    rollout, _ = rolled_out(params)
    batch = rollouts.to_rows(tokens, mask, rollout, GROUP, np.array([7, 3, 7]))
    np.testing.assert_array_equal(batch["group_ids"], [[0] * GROUP, [1] * GROUP, [0] * GROUP])
    both = rollouts.join([batch, batch])
    np.testing.assert_array_equal(both["group_ids"][:, 0], [0, 1, 0, 3, 4, 3])


def test_shares_of_groups_count_groups_and_not_rows():
    batch = {
        "group_ids": np.array([[0, 0], [1, 1], [0, 0], [3, 3]]),
        "valid": np.array([[True, True], [True, True], [True, True], [False, False]]),
        "rewards": np.array([[1.0, 1.0], [2.0, 2.0], [1.0, 0.0], [1.0, 0.0]]),
        "mask": np.ones((4, 2, 2), bool),
    }
    np.testing.assert_array_equal(rollouts.alike(batch)[:3].all(axis=1), [False, True, False])
    assert rollouts.share_of_groups(rollouts.silent(batch), batch) == 0.5
    advantages = np.zeros((4, 2, 2))
    advantages[1, 0, 1] = 1.0
    batch["token_advantages"] = advantages
    assert rollouts.share_of_groups(rollouts.silent(batch), batch) == 0.5
    batch["mask"][1, 0, 1] = False
    assert rollouts.share_of_groups(rollouts.silent(batch), batch) == 1.0
    assert np.isnan(rollouts.share_of_groups(rollouts.silent(batch), batch | {"valid": np.zeros((4, 2), bool)}))


def test_a_completion_in_a_row_of_its_own_scores_as_in_its_group(params):
    _, batch = rolled_out(params)
    batch["token_advantages"] = np.arange(9.0 * TIME).reshape(3, 3, TIME)
    alone = rollouts.one_per_row(batch)
    needs = statistics.needs_of(["policy_token_logps"])
    scores = jax.jit(lambda p, b: statistics.compute(needs, MODEL, p, {}, b)["policy_token_logps"])
    got, want = (np.asarray(scores(params, b)) for b in (alone, batch))
    assert got.shape == (9, 1, TIME)
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)
    np.testing.assert_array_equal(alone["group_ids"][:, 0], np.repeat([0, 1, 2], 3))
    np.testing.assert_array_equal(alone["token_advantages"][:, 0], batch["token_advantages"].reshape(9, TIME))
    ends = np.take_along_axis(alone["tokens"], alone["last_index"], axis=1)
    np.testing.assert_array_equal(ends, np.take_along_axis(batch["tokens"], batch["last_index"], 1).reshape(9, 1))


def test_resampling_draws_by_weight_with_replacement_and_never_what_is_not_valid(params):
    _, batch = rolled_out(params)
    batch["sampling_weights"] = np.array([[4.0, 0.0, 1.0], [0.0, 0.0, 0.0], [5.0, 1.0, 5.0]])
    batch["valid"] = batch["valid"].copy()
    batch["valid"][2] = False
    batch["number"] = np.arange(9).reshape(3, 3)
    drawn = [rollouts.resampled(batch, np.random.default_rng(i)) for i in range(200)]
    assert drawn[0]["mask"].shape == (9, 1, TIME)
    counts = np.bincount(np.concatenate([d["number"].reshape(-1) for d in drawn]), minlength=9) / (9 * 200)
    np.testing.assert_allclose(counts, [0.8, 0, 0.2, 0, 0, 0, 0, 0, 0], atol=0.04)
    assert (counts[[1, 3, 4, 5, 6, 7, 8]] == 0).all()
    with pytest.raises(ValueError, match="no completion of the rollout has a weight above 0"):
        rollouts.resampled(batch | {"sampling_weights": np.zeros((3, 3))}, np.random.default_rng(0))
