"""Evolved objectives: the tasks against closed forms, the loop against a restart, and evolution against its start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from alignment.training import preemption
from configs import evolution
from experiments import evolve


def tiny(steps=3, **objective):
    config = tiny_runs.shrink_toy(evolution.base(), steps)
    config.objective.update(objective)
    return config


def test_return_of_a_policy_is_its_mean_over_simulated_episodes():
    config = evolution.base()
    task = evolve.draw_grid(config.task, jax.random.key(1))
    logits = 0.5 * jax.random.normal(jax.random.key(2), (9, 4))
    exact = evolve.expected_return(task, logits, 0.9, 8)
    played = evolve.play(task, logits, jax.random.key(3), 20_000, 8)
    still = jnp.cumprod(jnp.pad(~played.dones, ((0, 0), (1, 0)), constant_values=True), axis=1)[:, :-1]
    returns = jnp.sum(still * played.rewards * 0.9 ** jnp.arange(8), axis=1)
    assert abs(float(returns.mean() - exact)) < 4 * float(returns.std()) / 20_000**0.5
    bandit = evolve.draw_bandit(config.task, jax.random.key(1))
    got = evolve.expected_return(bandit, jnp.zeros((1, 5)), 0.9, 8)
    np.testing.assert_allclose(got, bandit.reward.mean(), rtol=1e-5)


def test_a_grid_has_its_goal_and_its_walls():
    task = evolve.draw_grid(evolution.base().task, jax.random.key(0))
    np.testing.assert_array_equal(task.next_state[0], [0, 3, 0, 1])  # up and left of the corner is the corner
    assert task.done.sum() == task.reward.sum() and len(set(np.asarray(task.next_state)[np.asarray(task.done)])) == 1


@pytest.mark.parametrize("rule", ["a2c", "ppo", "discovered"])
def test_the_known_objectives_learn_a_grid(rule):
    config = evolution.base()
    config.agent.updates = 30
    _, known = evolve.rules(config)
    task = evolve.draw_grid(config.task, jax.random.key(1))

    def update(agent, key):
        batch = evolve.play(task, agent["policy"], key, 8, 8)
        return known[rule]({}, agent, batch, 0, 3.0, config.agent), None

    agent, _ = jax.jit(lambda keys: jax.lax.scan(update, evolve.initial_agent(task, 2), keys))(
        jax.random.split(jax.random.key(0), 30)
    )
    before, after = (evolve.expected_return(task, p, 0.9, 8) for p in (jnp.zeros((9, 4)), agent["policy"]))
    assert after > before + 0.2


def test_evolution_finds_a_better_drift_and_a_stopped_run_goes_on_exactly(tmp_path, monkeypatch):
    config = tiny(3, name="lpo")
    config.evolution.update(pairs=16, tasks=16, generations=8)
    config.evaluation.tasks = 64
    config.agent.update(updates=8, episodes=4, steps=4)
    want = evolve.run(config, tmp_path / "whole")
    assert want["returns"]["lpo, evolved"] > want["returns"]["lpo, not evolved"] + 0.02, want["returns"]
    with monkeypatch.context() as patch:
        seen = iter(range(1, 100))
        patch.setattr(preemption.StopOnSignal, "requested", lambda self: next(seen) == 2)
        with pytest.raises(SystemExit):
            evolve.run(config, tmp_path / "parts")
    assert evolve.run(config, tmp_path / "parts")["curves_of_returns"] == want["curves_of_returns"]


def test_an_unknown_objective_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.objective\.name: 'ppo' is not one of lpg"):
        evolve.run(tiny(name="ppo"), tmp_path)
