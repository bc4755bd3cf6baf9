"""Rollouts with an opponent beside the policy, and groups that a judge compares."""

import importlib
import types

import jax
import numpy as np
import pytest
import tiny_runs

from alignment import statistics
from alignment.data.tokenizers import ByteTokenizer
from alignment.models import decoder
from alignment.rewards import runner
from alignment.training import pairs, rollouts
from configs import online
from experiments import engines, from_config, prompt_sets, reinforce, rolling_out

GROUP, TIME = 4, 6
TOKENIZER = types.SimpleNamespace(eos_id=1, pad_id=0, vocab_size=40)
MODEL = decoder.build(
    decoder.DecoderConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2, max_position_embeddings=32
    )
)
TOKENS, MASK = rollouts.pad_prompts([[5, 6, 7], [8]], 4, 0)


def made(engine, **settings):
    config = online.base()
    config.rollout.group_size, config.data.completion_length = GROUP, TIME
    config.rollout.engine, config.rollout.engine_settings = f"experiments.engines:{engine}", settings
    return engines.make(config, MODEL, TOKENIZER)


@pytest.fixture(scope="module")
def params():
    return [jax.tree.map(lambda a: 8 * a if a.ndim > 1 else a, MODEL.init(jax.random.key(i))) for i in range(2)]


def logits_at_each_token(params, batch):
    _, h = statistics.completion_hidden(MODEL, params, batch)
    return np.asarray(MODEL.unembed(params, h), np.float64)


@pytest.mark.parametrize(
    "engine, settings, opponents, mixture",
    [
        ("nash_md", {"mixture": 0.25}, 2, 0.25),
        ("nash_md", {"mixture": 1.0, "opponents": 1}, 1, 1.0),
        ("ipo_md", {"mixture": 0.5}, 4, 0.5),
        ("selm", {}, 2, 1.0),
    ],
)
def test_each_player_has_the_log_probs_of_what_it_drew_from(params, engine, settings, opponents, mixture):
    """The opponent's tokens are of softmax((1 - mixture) policy + mixture start), the others of the policy alone."""
    policy, start = params
    engine = made(engine, **settings)
    rollout = engine.draw(engine.init(start), policy, TOKENS, MASK, jax.random.key(3))
    batch = rollouts.to_rows(TOKENS, MASK, rollouts.check(rollout, 2, GROUP, TIME), GROUP, np.arange(2))
    np.testing.assert_array_equal(batch["opponents"], [[i >= GROUP - opponents for i in range(GROUP)]] * 2)
    of_policy, of_start = (logits_at_each_token(p, batch) for p in (policy, start))
    share = np.where(batch["opponents"], mixture, 0.0)[..., None, None]
    logits = (1 - share) * of_policy + share * of_start
    logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(logps, batch["targets"][..., None], -1)[..., 0]
    np.testing.assert_allclose(batch["behaviour_token_logps"], np.where(batch["mask"], expected, 0), atol=1e-4)


def test_opponents_stand_before_the_places_of_the_demonstrations(params):
    policy, start = params
    config = online.base()
    config.rollout.group_size, config.rollout.demonstrations, config.data.completion_length = GROUP, 2, TIME
    config.rollout.engine, config.rollout.engine_settings = "experiments.engines:selm", {"opponents": 1}
    engine = engines.make(config, MODEL, TOKENIZER)
    rollout = engine.draw(engine.init(start), policy, TOKENS, MASK, jax.random.key(3))
    batch = rollouts.to_rows(TOKENS, MASK, rollouts.check(rollout, 2, GROUP, TIME), GROUP, np.arange(2))
    np.testing.assert_array_equal(batch["opponents"], [[False, True, False, False]] * 2)
    for player, theirs in ((policy, ~batch["opponents"]), (start, batch["opponents"])):
        logits = logits_at_each_token(player, batch)
        logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = np.take_along_axis(logps, batch["targets"][..., None], -1)[..., 0]
        counts = batch["mask"] & theirs[..., None]
        np.testing.assert_allclose(batch["behaviour_token_logps"][counts], expected[counts], atol=1e-4)
    config.rollout.engine_settings = {"opponents": 3}
    with pytest.raises(ValueError, match=r"opponents must lie in \[1, 2\], got 3 of a group of 4"):
        engines.make(config, MODEL, TOKENIZER)


@pytest.mark.parametrize("decay", [0.0, 0.75, 1.0])
def test_the_average_follows_the_policy_by_its_decay(params, decay):
    engine = made("nash_ema", decay=decay)
    memory = engine.update(engine.init(params[0]), params[1], {})
    jax.tree.map(
        lambda found, old, new: np.testing.assert_allclose(found, decay * old + (1 - decay) * new, atol=1e-5),
        memory["remembered"], *params,
    )  # fmt: skip
    still = engine.update(engine.init(params[0]), params[0], {})  # a fixed point
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), still["remembered"], params[0])


def test_a_past_self_is_renewed_every_so_many_iterations_and_never_without(params):
    for every, renewed in ((2, [0, 1]), (0, [0, 0])):
        engine = made("selm", refresh_every=every)
        memory = engine.init(params[0])
        for expected in renewed:
            memory = engine.update(memory, params[1], {})
            jax.tree.map(np.testing.assert_array_equal, memory["remembered"], params[expected])


@pytest.mark.parametrize(
    "engine, settings, words",
    [
        ("nash_md", {"mixture": 1.5}, r"mixture must lie in \[0, 1\]"),
        ("nash_md", {"opponents": 5}, r"opponents must lie in \[1, 4\], got 5 of a group of 4"),
        ("nash_ema", {"decay": -0.1}, r"decay must lie in \[0, 1\]"),
        ("selm", {"refresh_every": -1}, "refresh_every must be at least 0"),
        ("ipo_md", {"opponents": 1}, "has no such setting; it has: mixture"),
    ],
)
def test_settings_out_of_range_are_refused(engine, settings, words):
    with pytest.raises(ValueError, match=words):
        made(engine, **settings)


# --- judges in a rollout ---------------------------------------------------------------------------------------------


def longer(prompt, first, second, record):
    return float(len(first) > len(second)) if len(first) != len(second) else 0.5


def undecided(prompt, first, second, record):
    return "the first"


def of(name, **settings):
    config = tiny_runs.shrink_online(importlib.import_module(f"configs.{name}").get_config())
    config.before = {}
    config.rewards = {"letters": {"function": "tiny_runs:letters"}}
    config.rollout.update(settings)
    return config


def rolled(config):
    tokenizer = ByteTokenizer()
    model, _ = from_config.build_model(config, tokenizer.vocab_size)
    params = model.init(jax.random.key(0))
    prompts, _ = prompt_sets.load(config, tokenizer)
    engine = engines.make(config, model, tokenizer)
    rolling = rolling_out.make(config, model, tokenizer, engine, [], [])
    with runner.RewardRunner([tiny_runs.letters], [1.0]) as rewarder:
        memory = {engines.ENGINE: engine.init(params)}
        batch, _, texts = rolling.roll_out(
            params, memory, prompts[: config.rollout.prompts], jax.random.key(0), rewarder
        )
    return batch, np.array([len(t) for t in texts]).reshape(batch["rewards"].shape)


def test_a_judge_compares_with_the_opponents_completions_which_are_not_trained_on():
    batch, lengths = rolled(of("nash_md_pg", judge="test_opponents:longer"))
    wins = (lengths[:, :, None] > lengths[:, None, :]) + 0.5 * (lengths[:, :, None] == lengths[:, None, :])
    np.testing.assert_allclose(batch["win_rates"], wins[:, :, 2:].mean(-1))
    np.testing.assert_array_equal(batch["valid"], [[True, True, False, False]] * 4)


def test_selm_ranks_a_fresh_sample_with_both_answers_of_the_data():
    """Its three completions are the sample, the chosen and the rejected answer; the sample is what the bonus is of."""
    config = of("selm", group_size=3)
    batch, _ = rolled(config)
    np.testing.assert_array_equal(batch["opponents"], [[True, False, False]] * 4)
    np.testing.assert_array_equal(batch["demonstration_mask"].any(-1), [[False, True, True]] * 4)
    tokenizer = ByteTokenizer()
    prompts, _ = prompt_sets.load(config, tokenizer)
    for row, prompt in enumerate(prompts[:4]):
        for place, text in zip((1, 2), prompt.record["demonstrations"], strict=True):
            tokens = batch["targets"][row, place][batch["mask"][row, place]].tolist()
            assert tokens == [*tokenizer.encode(text), tokenizer.eos_id]
    made = pairs.of_rollout(batch, pairs.best_and_worst, with_samples=True)
    assert made["mask"].shape[1] == 3
    np.testing.assert_array_equal(made["targets"][:, 2], batch["targets"][:, 0])


def test_a_record_must_have_as_many_demonstrations_as_the_config_asks_for():
    prompt = prompt_sets.Prompt(7, "p", [5], {"demonstrations": ["a"]})
    with pytest.raises(ValueError, match=r"prompt 7 \('p'\): its field 'demonstrations' must be 2 texts, .* got \["):
        prompt_sets.demonstrations(prompt, ByteTokenizer(), 2)


def test_a_judge_that_says_nothing_useful_stops_the_run_and_names_the_prompt(tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    with pytest.raises(RuntimeError, match=r"must give a probability .* got 'the first' on prompt"):
        reinforce.run(of("online_dpo", judge="test_opponents:undecided"), tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"judge": "test_opponents:nobody"}, "config.rollout.judge: no function 'test_opponents:nobody'"),
        ({"pairs": "best"}, "config.rollout.pairs: 'best' is not one of best_and_worst"),
        ({"group_size": 1}, "config.rollout.group_size: a pair needs a group of at least 2"),
        ({"pairs": "demonstration_and_sample"}, "demonstration_and_sample needs config.rollout.demonstrations"),
        ({"pair_margin": -0.5}, "config.rollout.pair_margin: -0.5; must be at least 0"),
        ({"pairs": "", "pair_margin": 0.5}, "config.rollout.pair_margin: 0.5; must be at least 0, and is of"),
        ({"pair_margin_of_own": -0.5}, "config.rollout.pair_margin_of_own: -0.5; must be at least 0"),
        ({"pairs": "", "pair_floor": 0.5}, "config.rollout.pair_floor: 0.5; is a number, and is of"),
        ({"pairs": ""}, "needs 'policy_chosen_logps', but .*; set config.rollout.pairs"),
    ],
)
def test_what_has_no_pairs_is_refused_before_anything_is_sampled(change, words, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    monkeypatch.setattr(rollouts, "to_rows", lambda *a: pytest.fail("it was sampled from"))
    with pytest.raises(ValueError, match=words):
        reinforce.run(of("online_dpo", **change), tmp_path)


def test_losses_on_win_rates_need_a_judge(tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    with pytest.raises(ValueError, match="needs the column 'chosen_win_rates'"):
        reinforce.run(of("sppo", judge=""), tmp_path)
