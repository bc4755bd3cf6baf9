"""Evolves the objective of a reinforcement learner on bandits or small grid worlds, and compares it with known ones.

    python -m experiments.evolve --config=configs/lpg.py --workdir=DIR [--config.task.name=grid ...]

A candidate's fitness is the return of agents that were trained by it from scratch, each on a task of its own: an inner
`scan` over updates under a `vmap` over tasks and candidates, an outer `scan` over generations of `es_step`. The same
command goes on with a run that was stopped or killed. WORKDIR receives checkpoints/, metrics.jsonl, tensorboard/,
curves.png, learning.png (return over the agent's updates) and result.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from alignment.policy_gradients import (
    discovered_drift,
    es_step,
    lpg,
    lpg_inputs,
    lpg_network,
    lpo,
    ppo_drift,
    reinforce,
    ta_lpg_inputs,
    ta_lpo,
)  # fmt: skip
from configs import common, evolution
from experiments import command, stages, toy_loop
from experiments.from_config import say

Array = jax.Array


class Task(NamedTuple):
    """A tabular task of S states and A actions; every episode begins in state 0."""

    next_state: Array  # i32 [S, A]
    reward: Array  # f32 [S, A], mean of
    done: Array  # bool [S, A]
    noise: Array  # f32 [], of the rewards


class Trajectories(NamedTuple):
    """Of B episodes, T steps each."""

    states: Array
    actions: Array
    rewards: Array
    next_states: Array
    dones: Array


def draw_bandit(settings: ConfigDict, rng: Array) -> Task:
    """One state, arms with normal means; an episode is one pull."""
    shape = (1, settings.arms)
    noise = jnp.float32(settings.noise)
    return Task(jnp.zeros(shape, jnp.int32), jax.random.normal(rng, shape), jnp.ones(shape, bool), noise)


def draw_grid(settings: ConfigDict, rng: Array) -> Task:
    """A square without walls; from a corner to a goal anywhere else, worth 1, where the episode ends."""
    side = settings.side
    goal = jax.random.randint(rng, (), 1, side * side)
    row, column = jnp.divmod(jnp.arange(side * side), side)
    moves = jnp.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
    to = jnp.clip(jnp.stack([row, column], -1)[:, None] + moves, 0, side - 1)
    next_state = (to[..., 0] * side + to[..., 1]).astype(jnp.int32)
    reached = next_state == goal
    return Task(next_state, reached.astype(jnp.float32), reached, jnp.float32(0))


def play(task: Task, logits: Array, rng: Array, episodes: int, steps: int) -> Trajectories:
    def step(states, key):
        act, noise = jax.random.split(key)
        actions = jax.random.categorical(act, logits[states])
        rewards = task.reward[states, actions] + task.noise * jax.random.normal(noise, states.shape)
        after, dones = task.next_state[states, actions], task.done[states, actions]
        return jnp.where(dones, 0, after), Trajectories(states, actions, rewards, after, dones)

    _, by_time = jax.lax.scan(step, jnp.zeros(episodes, jnp.int32), jax.random.split(rng, steps))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), by_time)


def expected_return(task: Task, logits: Array, discount: float, steps: int) -> Array:
    """Exact: what an episode of at most so many steps brings, discounted."""
    policy = jax.nn.softmax(logits)

    def back(values, _):
        later = jnp.where(task.done, 0.0, values[task.next_state])
        return jnp.sum(policy * (task.reward + discount * later), axis=-1), None

    return jax.lax.scan(back, jnp.zeros(logits.shape[0]), None, length=steps)[0][0]


def log_probs(logits: Array, batch: Trajectories) -> Array:
    return jnp.take_along_axis(jax.nn.log_softmax(logits[batch.states]), batch.actions[..., None], axis=-1)[..., 0]


# --- what an agent may follow: update(weights, agent, batch, progress, rate, settings) -> agent


def initial_weights(config: ConfigDict, rng: Array) -> dict[str, Array]:
    name, width, targets = config.objective.name, config.objective.width, config.objective.targets
    aware = name.startswith("ta_")
    if name.endswith("lpo"):
        shapes = {"drift_hidden": (16 if aware else 8, width), "drift_output": (width,)}
    else:
        shapes = {
            "embedding_hidden": (targets, width), "embedding_output": (width,),
            "gru_input": (7 if aware else 5, 3 * width), "gru_recurrent": (width, 3 * width), "gru_bias": (3 * width,),
            "coefficient_head": (width,), "target_head": (width, targets),
        }  # fmt: skip
    keys = jax.random.split(rng, len(shapes))
    return {n: jax.random.normal(k, s) * s[0] ** -0.5 for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def initial_agent(task: Task, targets: int) -> dict[str, Array]:
    states, actions = task.reward.shape
    return {
        "policy": jnp.zeros((states, actions)), "value": jnp.zeros(states), "prediction": jnp.zeros((states, targets))
    }  # fmt: skip


def descend(agent, loss, rate):
    return jax.tree.map(lambda x, g: x - rate * g, agent, jax.grad(loss)(agent))


def follow_lpg(weights, agent, batch, at, rate, settings, aware):
    mask = jnp.ones_like(batch.dones)
    y, later = (jax.nn.softmax(agent["prediction"][s]) for s in (batch.states, batch.next_states))
    inputs = lpg_inputs(
        batch.rewards, batch.dones, log_probs(agent["policy"], batch), y, later,
        weights["embedding_hidden"], weights["embedding_output"],
    )  # fmt: skip
    if aware:
        rows = batch.dones.shape[:1]
        inputs = ta_lpg_inputs(inputs, jnp.full(rows, at), jnp.full(rows, settings.updates))
    coefficients, targets = lpg_network(
        inputs, batch.dones,
        *(weights[k] for k in ("gru_input", "gru_recurrent", "gru_bias", "coefficient_head", "target_head")),
    )  # fmt: skip

    def loss(agent):
        logits = agent["prediction"][batch.states]
        return jnp.mean(lpg(log_probs(agent["policy"], batch), logits, coefficients, targets, mask))

    return descend(agent, loss, rate)


def follow_surrogate(surrogate, epochs):
    """An update by a loss of (log-probs, those of the sampler, advantages, mask, progress), several times a batch."""

    def follow(weights, agent, batch, at, rate, settings):
        def back(after, now):
            reward, done = now
            value = reward + settings.discount * jnp.where(done, 0.0, after)
            return value, value

        # Beyond the last step the value function says what would still come.
        end = jnp.where(batch.dones[:, -1], 0.0, agent["value"][batch.next_states[:, -1]])
        _, returns = jax.lax.scan(back, end, (batch.rewards.T, batch.dones.T), reverse=True)
        residuals = returns.T - agent["value"][batch.states]
        advantages = (residuals - residuals.mean()) / (residuals.std() + 1e-3)
        behaviour, mask = log_probs(agent["policy"], batch), jnp.ones_like(batch.dones)
        progress = jnp.full(batch.dones.shape[:1], at / settings.updates)

        def loss(agent):
            logps = log_probs(agent["policy"], batch)
            return jnp.mean(surrogate(weights, logps, behaviour, advantages, mask, progress))

        visits = jnp.zeros_like(agent["value"]).at[batch.states].add(1.0)
        errors = jnp.zeros_like(agent["value"]).at[batch.states].add(residuals)
        agent = jax.lax.fori_loop(0, epochs, lambda _, agent: descend(agent, loss, rate), agent)
        return agent | {"value": agent["value"] + 0.5 * errors / jnp.maximum(visits, 1)}

    return follow


def rules(config: ConfigDict):
    """(the evolved one, those it is compared with)."""
    name, epochs = config.objective.name, config.agent.epochs
    if name.endswith("lpg"):

        def evolved(*arguments):
            return follow_lpg(*arguments, aware=name == "ta_lpg")
    elif name == "lpo":
        evolved = follow_surrogate(lambda w, p, b, a, m, n: lpo(p, b, a, m, *w.values()), epochs)
    else:
        evolved = follow_surrogate(lambda w, p, b, a, m, n: ta_lpo(p, b, a, m, n, *w.values()), epochs)
    known = {
        "a2c": follow_surrogate(lambda w, p, b, a, m, n: reinforce(p, a, m), 1),
        "ppo": follow_surrogate(lambda w, p, b, a, m, n: ppo_drift(p, b, a, m), epochs),
        "discovered": follow_surrogate(lambda w, p, b, a, m, n: discovered_drift(p, b, a, m), epochs),
    }
    return evolved, known


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """One run of evolution; returns what it prints at the end. A SIGTERM saves and exits with 0."""
    common.check_keys(config, evolution.base(), free=evolution.FREE)
    evolution.check_numbers(config)
    if (result := stages.finished(config, workdir, config.training.steps)) is not None:
        report(result)
        return result
    settings, es = config.agent, config.evolution
    draw_task = {"bandit": draw_bandit, "grid": draw_grid}[config.task.name]
    evolved, known = rules(config)
    weights, unravel = ravel_pytree(initial_weights(config, jax.random.key(config.seed)))

    def train_agent(follow, weights, rate, key):
        """Expected return after every update of an agent on a task of its own, [updates]."""
        task_key, play_key = jax.random.split(key)
        task = draw_task(config.task, task_key)

        def update(agent, at):
            rng = jax.random.fold_in(play_key, at)
            batch = play(task, agent["policy"], rng, settings.episodes, settings.steps)
            agent = follow(weights, agent, batch, at, rate, settings)
            return agent, expected_return(task, agent["policy"], settings.discount, settings.steps)

        return jax.lax.scan(update, initial_agent(task, config.objective.targets), jnp.arange(settings.updates))[1]

    def fitness(candidate, keys):
        curves = jax.vmap(lambda k: train_agent(evolved, unravel(candidate), settings.learning_rate, k))(keys)
        return curves[:, -1].mean()

    # --- generations
    @jax.jit
    def evolve(weights, key):
        def generation(weights, key):
            noise_key, task_key = jax.random.split(key)
            noises = jax.random.normal(noise_key, (es.pairs, weights.size))
            keys = jax.random.split(task_key, es.tasks)  # the same tasks and chances for all: only the weights differ
            candidates = jnp.concatenate([weights + es.sigma * noises, weights - es.sigma * noises])
            returns = jax.vmap(fitness, (0, None))(candidates, keys)
            plus, minus = jnp.split(returns, 2)
            hyper = {"sigma": es.sigma, "learning_rate": es.learning_rate}
            return es_step(weights, noises, plus, minus, **hyper), returns.mean()

        return jax.lax.scan(generation, weights, jax.random.split(key, es.generations))

    def advance(state, at):
        weights, returns = evolve(state["weights"], jax.random.fold_in(jax.random.key(config.seed), at))
        return {"weights": weights}, {"loss": -returns.mean(), "return": returns.mean()}

    # --- comparison
    keys, others = (jax.random.split(jax.random.key(seed), config.evaluation.tasks) for seed in (7, 8))

    @jax.jit
    def curve_of_evolved(weights):
        each = jax.vmap(lambda k: train_agent(evolved, unravel(weights), settings.learning_rate, k))(keys)
        return each.mean(axis=0)

    def curve_of_known(follow) -> tuple[float, Array]:
        curve = jax.jit(lambda rate, keys: jax.vmap(lambda k: train_agent(follow, {}, rate, k))(keys).mean(axis=0))
        best = max(config.evaluation.learning_rates, key=lambda rate: float(curve(rate, others)[-1]))
        return best, curve(best, keys)

    def evaluate(state):
        return {"return": float(curve_of_evolved(state["weights"])[-1])}

    state = toy_loop.train(config.objective.name, config, workdir, {"weights": weights}, advance, evaluate)

    # --- results
    name = config.objective.name
    curves = {f"{name}, not evolved": curve_of_evolved(weights)}
    curves[f"{name}, evolved"] = curve_of_evolved(state["weights"])
    rates = {}
    for key, follow in known.items():
        rates[key], curves[key] = curve_of_known(follow)
    curves = {k: np.asarray(v).tolist() for k, v in curves.items()}
    result = {"name": name, "steps": config.training.steps, "generations": config.training.steps * es.generations}
    result |= {"returns": {k: v[-1] for k, v in curves.items()}, "learning_rates": rates, "curves_of_returns": curves}
    result |= {"metrics": str(workdir / "metrics.jsonl"), "figure": str(workdir / "learning.png")}
    draw(workdir / "learning.png", curves, config.task.name)
    stages.store_result(config, workdir, result)
    report(result)
    return result


def draw(path: Path, curves: dict[str, list[float]], task: str) -> None:
    """Mean expected return of fresh agents over their updates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for name, curve in curves.items():
        axis.plot(np.arange(len(curve)) + 1, curve, label=name, linestyle="--" if "not evolved" in name else "-")
    axis.set_xlabel("update of the agent")
    axis.set_ylabel("expected return")
    axis.set_title(f"{task}: agents on tasks they have not seen", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def report(result: dict[str, Any]) -> None:
    say(f"\n{result['name']}: {result['generations']} generations; final return of agents on tasks not seen:")
    for name, value in result["returns"].items():
        rate = result["learning_rates"].get(name)
        say(f"  {name:22} {value:.3f}" + (f"  (learning rate {rate:g}, the best of those tried)" if rate else ""))
    for key in ("metrics", "figure"):
        say(f"  {key:8} {result[key]}")


if __name__ == "__main__":
    command.start(run)
