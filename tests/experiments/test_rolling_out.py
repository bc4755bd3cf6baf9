"""What goes into a rollout besides samples: critiques, explanations of revealed answers, tasks made from answers."""

import importlib

import jax
import numpy as np
import pytest
import tiny_runs

from alignment.data.tokenizers import ByteTokenizer
from alignment.rewards import feedback, runner
from experiments import engines, from_config, prompt_sets, reinforce, rolling_out

TOKENIZER = ByteTokenizer()


def rolled(config, reward, seed=0):
    """One rollout of a fresh model under a config; (config, batch, texts)."""
    model, _ = from_config.build_model(config, TOKENIZER.vocab_size)
    params = model.init(jax.random.key(0))
    prompts, _ = prompt_sets.load(config, TOKENIZER)
    engine = engines.make(config, model, TOKENIZER)
    rolling = rolling_out.make(config, model, TOKENIZER, engine, [], [])
    with runner.RewardRunner([reward], [1.0]) as rewarder:
        batch, failures, texts = rolling.roll_out(
            params, {}, prompts[: config.rollout.prompts], jax.random.key(seed), rewarder
        )
    assert not failures.failed
    return prompts, batch, texts


def of(name):
    return tiny_runs.shrink_online(importlib.import_module(f"configs.{name}").get_config())


def length_is_even(prompt, completion, record):
    return float(len(completion) % 2 == 0)


def never(prompt, completion, record):
    return 0.0


def test_critiques_label_the_tokens_of_the_spans_that_they_name():
    config = of("text2grad")
    prompts, batch, texts = rolled(config, length_is_even)
    labels, mask = batch["span_labels"], batch["mask"]
    assert labels.shape == mask.shape and labels.dtype == np.float32
    assert set(np.unique(labels)) <= {-1.0, 0.0, 1.0} and (labels == -1).any()
    assert not labels[~mask].any()
    for row, prompt in enumerate(prompts[: config.rollout.prompts]):
        for place in range(config.rollout.group_size):
            text = texts[row * config.rollout.group_size + place]
            bad = [s for s in feedback.critique(prompt.prompt, text, prompt.record) if s[2] == -1]
            assert bool(bad) == (labels[row, place] == -1).any()


def test_right_explanations_take_the_last_place_and_wrong_ones_none():
    config = of("expo")
    prompts, batch, _ = rolled(config, length_is_even)
    shown, correct = batch["demonstration_mask"], batch["correct"]
    assert not shown[:, :-1].any()
    assert shown[:, -1].any(axis=-1).any(), "some explanation of this seed is right"
    for row in range(len(shown)):
        if shown[row, -1].any():
            np.testing.assert_array_equal(shown[row, -1], batch["mask"][row, -1])
            assert correct[row, -1] and not batch["behaviour_token_logps"][row, -1].any()
    # The prompt of the row is the question, whatever the explanation was drawn from.
    for row, prompt in enumerate(prompts[: config.rollout.prompts]):
        assert batch["tokens"][row, : config.data.prompt_length][-len(prompt.tokens) :].tolist() == prompt.tokens
    _, none, _ = rolled(config, never)
    assert not none["demonstration_mask"].any()


def test_tasks_made_of_the_answers_take_the_last_rows_and_groups_of_their_own():
    config = of("spark")
    config.rollout.prompts, config.rollout.recycled = 6, 3
    prompts, batch, texts = rolled(config, length_is_even)
    assert len(batch["ids"]) == 6 and len(texts) == 6 * config.rollout.group_size
    assert batch["ids"][:3].tolist() == [p.id for p in prompts[:3]]
    made = TOKENIZER.decode(batch["tokens"][-1][: config.data.prompt_length].tolist())
    valid = batch["valid"].all(axis=1)
    assert valid[:3].all()
    assert (batch["ids"][3:] > 2**29).tolist() == valid[3:].tolist()
    assert len(np.unique(batch["group_ids"][:, 0])) == 6
    assert not valid[-1] or made.endswith(("ok? ", "no: ", "? "))


def make_nothing(prompts, records, completions, rewards, rng):
    return []


def make_long(prompts, records, completions, rewards, rng):
    while True:
        yield "x" * 1000, {}


@pytest.mark.parametrize("maker", ["make_nothing", "make_long"])
def test_rows_without_a_task_count_for_nothing(maker):
    config = of("spark")
    config.rollout.recycle = f"test_rolling_out:{maker}"
    _, batch, _ = rolled(config, length_is_even)
    assert batch["valid"].all(axis=1).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reveal": "alignment.rewards.feedback:revealed"}, "set config.rollout.demonstrations"),
        ({"recycled": 2}, "set both or none"),
        ({"recycle": "alignment.rewards.feedback:judging_tasks", "recycled": 4}, "leave prompts to recycle"),
        ({"critique": "alignment.rewards.feedback:nothing"}, r"config\.rollout\.critique: no function"),
    ],
)
def test_what_does_not_fit_is_refused(change, words, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    config = of("grpo")
    config.before = {}
    config.rollout.update(change)
    with pytest.raises(ValueError, match=words):
        reinforce.run(config, tmp_path)


def test_kernels_that_remember_prompts_do_not_go_with_tasks_that_come_once(tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    config = of("spark")
    config.before = {}
    config.shaping = {"hapo": {}}
    with pytest.raises(ValueError, match="remembers prompts"):
        reinforce.run(config, tmp_path)


def test_direct_rlhf_is_ppo_from_another_start_with_the_start_as_reference():
    direct, ppo = (importlib.import_module(f"configs.{n}").get_config() for n in ("direct_harmless_rlhf", "ppo"))
    for section in ("shaping", "advantages", "objective", "reference", "training", "optimizer"):
        assert direct[section] == ppo[section], section
    assert direct.before.data.source == direct.data.source == "corpus"
