"""Engines of `experiments.engines` on a tiny model: what they sample from, and what they say of it."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from alignment import statistics, token_sets
from alignment.models import decoder, hugging_face
from alignment.policy_gradients import aggrevated_mask, nlpo_token_logps, nlpo_top_p, ppo_plus_plus_mask
from alignment.training import rollouts
from configs import online
from experiments import engines

GROUP, TIME = 4, 6
TOKENIZER = types.SimpleNamespace(eos_id=1, pad_id=0, vocab_size=40)
MODEL = decoder.build(
    decoder.DecoderConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2, max_position_embeddings=32
    )
)
TOKENS, MASK = rollouts.pad_prompts([[5, 6, 7], [8]], 4, 0)


def config(engine, **settings):
    out = online.base()
    out.rollout.group_size, out.data.completion_length = GROUP, TIME
    out.rollout.engine, out.rollout.engine_settings = f"experiments.engines:{engine}" if engine else "", settings
    return out


def made(engine, **settings):
    return engines.make(config(engine, **settings), MODEL, TOKENIZER)


@pytest.fixture(scope="module")
def params():
    return [jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(i))) for i in range(2)]


def rows_of(rollout):
    rollouts.check(rollout, 2, GROUP, TIME)
    return rollouts.to_rows(TOKENS, MASK, rollout, GROUP, np.arange(2))


def scored(params, batch, names=("policy_token_logps",), **settings):
    computed = statistics.compute(statistics.needs_of(names), MODEL, params, {}, batch, **settings)
    return [statistics.deliver(n, statistics.EACH, computed, batch) for n in names]


def logits_at_each_token(params, batch):
    _, h = statistics.completion_hidden(MODEL, params, batch)
    return MODEL.unembed(params, h).reshape(-1, TIME, 40)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_nlpos_scorer_and_sampler_agree_on_the_policy_within_the_older_ones_nucleus(params, temperature):
    policy, older = params
    settings = config("nlpo", p=0.6, min_tokens=2)
    settings.rollout.temperature = temperature
    engine = engines.make(settings, MODEL, TOKENIZER)
    memory = engine.init(older)
    rollout = engine.draw(memory, policy, TOKENS, MASK, jax.random.key(0))
    batch = rows_of(rollout)
    (logps,) = scored(policy, batch, temperature=temperature)
    np.testing.assert_allclose(logps, np.where(rollout.mask, rollout.logps, 0), atol=1e-4)
    # The kernels on the whole vocabulary are the oracle.
    special = jnp.broadcast_to(jnp.arange(40) == TOKENIZER.eos_id, (2 * GROUP, TIME, 40))
    actions = nlpo_top_p(logits_at_each_token(older, batch), special, p=0.6, min_tokens=2)
    support = token_sets.contains(rollout.columns["support"], jnp.arange(40))
    np.testing.assert_array_equal(support[rollout.mask], actions[rollout.mask])
    assert not actions[rollout.mask].all() and support[rollout.mask][:, TOKENIZER.eos_id].all()
    expected = nlpo_token_logps(
        logits_at_each_token(policy, batch) / temperature, actions, batch["targets"].reshape(-1, TIME), rollout.mask
    )
    np.testing.assert_allclose(logps, expected, atol=1e-4)


def test_nlpos_mask_policy_is_renewed_every_so_many_iterations_and_kept_between(params):
    engine = made("nlpo", p=0.0, min_tokens=1, refresh_every=2)
    memory = engine.init(params[0])
    again = lambda memory: engine.draw(memory, params[0], TOKENS, MASK, jax.random.key(1)).tokens  # noqa: E731
    first = again(memory)
    once = engine.update(memory, params[1], {})
    np.testing.assert_array_equal(again(once), first)
    twice = engine.update(once, params[1], {})
    assert (again(twice) != first).any()
    jax.tree.map(np.testing.assert_array_equal, twice["mask_policy"], params[1])


def test_nlpo_that_masks_nothing_samples_what_the_policy_samples(params):
    plain = made("").draw((), params[0], TOKENS, MASK, jax.random.key(2))
    engine = made("nlpo", p=1.0, min_tokens=1)
    masked = engine.draw(engine.init(params[1]), params[0], TOKENS, MASK, jax.random.key(2))
    np.testing.assert_array_equal(masked.tokens, plain.tokens)
    np.testing.assert_allclose(masked.logps, plain.logps, atol=1e-5)


@pytest.mark.parametrize("engine,guide_begins", [("ppo_plus_plus", True), ("aggrevated", False)])
def test_each_part_of_a_completion_has_the_log_probs_of_who_wrote_it(params, engine, guide_begins):
    policy, guide = params
    made_engine = made(engine, beta=1.0)
    rollout = made_engine.draw(made_engine.init(guide), policy, TOKENS, MASK, jax.random.key(3))
    assert set(rollout.columns) == set(made_engine.columns)
    batch, lengths = rows_of(rollout), rollout.columns["roll_in_lengths"]
    assert 0 < lengths.max() < TIME - 1
    (of_policy,), (of_guide,) = scored(policy, batch), scored(guide, batch)
    begun = np.asarray(aggrevated_mask(lengths, rollout.mask))
    after = np.asarray(ppo_plus_plus_mask(lengths, rollout.mask))
    first, then = (of_guide, of_policy) if guide_begins else (of_policy, of_guide)
    np.testing.assert_allclose(rollout.logps[begun], first[begun], atol=1e-4)
    np.testing.assert_allclose(rollout.logps[after], then[after], atol=1e-4)
    trained = after if guide_begins else begun
    np.testing.assert_allclose(rollout.logps[trained], of_policy[trained], atol=1e-4)
    assert np.abs(of_policy - of_guide)[begun | after].max() > 0.1


def test_without_roll_ins_ppo_plus_plus_samples_from_the_policy_alone(params):
    engine = made("ppo_plus_plus", beta=0.0)
    rollout = engine.draw(engine.init(params[1]), params[0], TOKENS, MASK, jax.random.key(4))
    assert not rollout.columns["roll_in_lengths"].any()
    (logps,) = scored(params[0], rows_of(rollout))
    np.testing.assert_allclose(logps, np.where(rollout.mask, rollout.logps, 0), atol=1e-4)


@pytest.mark.parametrize(
    "engine,settings,twin",
    [
        ("lols", {"tau": 1.0}, "ppo_plus_plus"),
        ("lols", {"tau": 0.0}, "aggrevated"),
        ("d2lols", {"tau": 0}, "ppo_plus_plus"),
        ("d2lols", {"tau": 3}, "aggrevated"),
    ],
)
def test_limits_of_the_mixed_engines(params, engine, settings, twin):
    policy, guide = params
    one, other = made(engine, beta=0.9, policy_beta=0.9, **settings), made(twin, beta=0.9)
    a, b = (e.draw(e.init(guide), policy, TOKENS, MASK, jax.random.key(5)) for e in (one, other))
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.logps, b.logps)


def test_d2lols_turns_after_tau_iterations(params):
    engine = made("d2lols", tau=1, beta=0.9)
    memory = engine.init(params[1])
    for iteration, twin in enumerate(("aggrevated", "ppo_plus_plus")):
        got = engine.draw(memory, params[0], TOKENS, MASK, jax.random.key(6))
        expected = made(twin, beta=0.9).draw(made(twin).init(params[1]), params[0], TOKENS, MASK, jax.random.key(6))
        np.testing.assert_array_equal(got.tokens, expected.tokens)
        assert set(got.columns["iterations"]) == {iteration}
        memory = engine.update(memory, params[0], {})


def test_a_guide_comes_from_a_directory_whether_or_not_the_policy_has_a_value_head(params, tmp_path):
    hugging_face.save(tmp_path, MODEL.config, params[1])
    with_head = decoder.build(dataclasses.replace(MODEL.config, reward_heads=1))
    engine = engines.make(config("aggrevated", guide=str(tmp_path), beta=0.9), with_head, TOKENIZER)
    memory = engine.init(params[0])
    assert "guide" not in memory, "what does not change is not saved with every checkpoint"
    got = engine.draw(memory, params[0], TOKENS, MASK, jax.random.key(7))
    twin = made("aggrevated", beta=0.9)
    expected = twin.draw(twin.init(params[1]), params[0], TOKENS, MASK, jax.random.key(7))
    np.testing.assert_array_equal(got.tokens, expected.tokens)


@pytest.mark.parametrize(
    "engine,settings,words",
    [
        ("", {"p": 0.5}, "names no engine"),
        ("nlpo", {"top": 0.5}, r"engine_settings\.top: .* it has: p, min_tokens, refresh_every"),
        ("nlpo", {"p": 1.5}, r"p must lie in \[0, 1\]"),
        ("nlpo", {"refresh_every": 0}, "refresh_every must be at least 1"),
        ("lols", {"tau": 2.0}, r"tau must lie in \[0, 1\]"),
        ("d2lols", {"tau": -1}, r"tau must lie in \[0, inf\)"),
        ("aggrevated", {"beta": -0.1}, "probability of a roll-in"),
        ("ppo_plus_plus", {"guide": "/nowhere"}, r"engine_settings\.guide: /nowhere is neither"),
        ("nothing", {}, "cannot make an engine"),
    ],
)
def test_an_engine_that_cannot_be_made_says_why(engine, settings, words):
    with pytest.raises(ValueError, match=words):
        made(engine, **settings)
    assert isinstance(config("").rollout.engine_settings, ConfigDict)
