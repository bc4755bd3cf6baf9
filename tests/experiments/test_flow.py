"""Advantage weighted matching in the plane: reward goes up, and a stopped run goes on exactly."""

import numpy as np
import pytest
import tiny_runs

from alignment.training import preemption
from configs import flow as flow_config
from experiments import flow


def tiny(steps, pretraining):
    config = tiny_runs.shrink_toy(flow_config.base(), steps)
    config.pretraining.steps = pretraining
    return config


def test_more_samples_are_at_rewarded_modes(tmp_path):
    config = tiny(430, 400)
    config.model.hidden_size, config.model.num_layers, config.model.sampler_steps = 32, 2, 10
    config.pretraining.batch_size, config.data.modes = 128, 4
    config.rollout.groups, config.rollout.group_size, config.objective.learning_rate = 4, 32, 3e-3
    config.training.log_every = 100
    result = flow.run(config, tmp_path)
    assert 0.3 < result["reward_before"] < 0.7 and result["reward_after"] > result["reward_before"] + 0.2, result
    assert (tmp_path / "samples.png").stat().st_size > 1000


@pytest.mark.parametrize("stop_at", [1, 3])
def test_stopped_and_resumed_is_bit_identical_before_and_after_pre_training_ends(tmp_path, monkeypatch, stop_at):
    config = tiny(5, 2)
    want = flow.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        seen = iter(range(1, 100))
        patch.setattr(preemption.StopOnSignal, "requested", lambda self: next(seen) == stop_at)
        with pytest.raises(SystemExit) as stopped:
            flow.run(config, tmp_path / "parts")
    assert stopped.value.code == 0
    got = flow.run(config, tmp_path / "parts")
    numbers = [k for k, v in want.items() if isinstance(v, float)]
    assert [got[k] for k in numbers] == [want[k] for k in numbers]
    curves = [(tmp_path / d / "metrics.jsonl").read_text() for d in ("whole", "parts")]
    assert curves[0] == curves[1]


def test_the_sampler_follows_the_velocity_field():
    """v = x - c pulls points of noise a known part of the way to c: each step multiplies the distance by 1 - 1/n."""
    centre = np.array([1.0, -2.0], np.float32)
    params = [{"w": np.vstack([np.eye(2), np.zeros((8, 2))]).astype(np.float32), "b": -centre}]
    points = flow.sample(params, flow.jax.random.key(0), count=64, steps=4)
    noise = flow.jax.random.normal(flow.jax.random.key(0), (64, 2))
    np.testing.assert_allclose(points, centre + 0.75**4 * (noise - centre), rtol=1e-4, atol=1e-5)


def test_a_run_without_reinforcement_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.training\.steps: 2 must be above the 2"):
        flow.run(tiny(2, 2), tmp_path)
