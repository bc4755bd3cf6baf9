"""Reinforcement of a flow model at its smallest: points in the plane, where some modes of the data are rewarded.

    python -m experiments.flow --config=configs/awm.py --workdir=DIR [--config.objective.penalty=0 ...]

Pre-trains a velocity field by flow matching, then shifts it towards reward by advantage weighted matching. The same
command goes on with a run that was stopped or killed. WORKDIR receives checkpoints/, metrics.jsonl, tensorboard/,
curves.png, samples.png (before and after) and result.json.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from alignment.policy_gradients import awm, awm_logps, awm_velocity_penalty, grpo_advantages
from configs import common, flow
from experiments import command, stages, toy_loop
from experiments.from_config import say


def centres(settings: ConfigDict) -> jax.Array:
    angles = 2 * jnp.pi * jnp.arange(settings.modes) / settings.modes
    return settings.radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def init(rng: jax.Array, width: int, layers: int) -> list[dict[str, jax.Array]]:
    sizes = [2 + 8, *[width] * layers, 2]
    keys = jax.random.split(rng, len(sizes))
    return [
        {"w": jax.random.normal(key, (a, b)) * a**-0.5, "b": jnp.zeros(b)}
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)
    ]


def velocity(params, x: jax.Array, t: jax.Array) -> jax.Array:
    """v(x, t) of points [..., 2] and times [...]."""
    waves = t[..., None] * jnp.pi * jnp.arange(1, 5)
    h = jnp.concatenate([x, jnp.cos(waves), jnp.sin(waves)], axis=-1)
    for layer in params[:-1]:
        h = jax.nn.silu(h @ layer["w"] + layer["b"])
    return h @ params[-1]["w"] + params[-1]["b"]


@functools.partial(jax.jit, static_argnames=("count", "steps"))
def sample(params, rng: jax.Array, *, count: int, steps: int) -> jax.Array:
    """Points [count, 2]: from noise at t = 1 along the velocities to t = 0."""

    def move(x, step):
        t = jnp.full(count, 1 - step / steps)
        return x - velocity(params, x, t) / steps, None

    return jax.lax.scan(move, jax.random.normal(rng, (count, 2)), jnp.arange(steps))[0]


def on_the_way(points: jax.Array, noises: jax.Array, times: jax.Array) -> jax.Array:
    return (1 - times[..., None]) * points + times[..., None] * noises


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """One run from data to figure; returns what it prints at the end. A SIGTERM saves and exits with 0."""
    common.check_keys(config, flow.base(), free=flow.FREE)
    flow.check_numbers(config)
    if (result := stages.finished(config, workdir, config.training.steps)) is not None:
        report(result)
        return result
    data, settings, rollout = config.data, config.objective, config.rollout
    modes, pretraining = centres(data), config.pretraining
    count = rollout.groups * rollout.group_size
    group_ids, valid = jnp.repeat(jnp.arange(rollout.groups), rollout.group_size), jnp.ones(count, bool)

    def nearest(points):
        distances = jnp.linalg.norm(points[:, None] - modes, axis=-1)
        return jnp.argmin(distances, axis=-1), jnp.min(distances, axis=-1)

    def reward_of(points):
        return (nearest(points)[0] % 2 == 0).astype(jnp.float32)

    # --- pre-training
    adam = {name: optax.adam(config[name].learning_rate) for name in ("pretraining", "objective")}

    def update(name, loss, state):
        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, optimizer = adam[name].update(gradient, state["optimizer"], state["params"])
        return value, state | {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer}

    @jax.jit
    def match(state, key):
        keys = jax.random.split(key, 4)
        which = jax.random.randint(keys[0], (pretraining.batch_size,), 0, data.modes)
        points = modes[which] + data.spread * jax.random.normal(keys[1], (pretraining.batch_size, 2))
        noises = jax.random.normal(keys[2], points.shape)
        times = jax.random.uniform(keys[3], points.shape[:1])

        def loss(params):
            moves = velocity(params, on_the_way(points, noises, times), times)
            return -jnp.mean(awm_logps(moves, points, noises, jnp.ones_like(times)))

        value, state = update("pretraining", loss, state)
        return state, {"loss": value}

    # --- advantage weighted matching
    @jax.jit
    def reinforce(state, key):
        keys = jax.random.split(key, 3)
        points = sample(state["params"], keys[0], count=count, steps=config.model.sampler_steps)
        rewards = reward_of(points)
        advantages = grpo_advantages(rewards, group_ids, valid)
        shape = (rollout.draws, count)
        points, advantages = jnp.broadcast_to(points, (*shape, 2)), jnp.broadcast_to(advantages, shape)
        noises, times = jax.random.normal(keys[1], (*shape, 2)), jax.random.uniform(keys[2], shape)
        x = on_the_way(points, noises, times)

        def logps(moves):
            return awm_logps(moves, points, noises, times**settings.time_power)

        behaviour, reference = logps(velocity(state["params"], x, times)), velocity(state["reference"], x, times)

        def loss(params):
            moves = velocity(params, x, times)
            hyper = {"clip": settings.clip, "largest_advantage": settings.largest_advantage}
            matching = awm(logps(moves), behaviour, advantages, **hyper)
            return jnp.mean(matching + settings.penalty * awm_velocity_penalty(moves, reference))

        for _ in range(settings.epochs):  # the same times and noises: ratios of the same thing
            value, state = update("objective", loss, state)
        return state, {"loss": value, "reward": rewards.mean()}

    # --- loop
    def advance(state, at):
        key = jax.random.fold_in(jax.random.key(config.seed), at)
        if at <= pretraining.steps:
            return match(state, key)
        if at == pretraining.steps + 1:  # what has been reached is the reference, and the moments start anew
            optimizer = adam["objective"].init(state["params"])
            state = state | {"reference": jax.tree.map(jnp.copy, state["params"]), "optimizer": optimizer}
        return reinforce(state, key)

    def evaluate(state):
        points = sample(state["params"], jax.random.key(7), count=4096, steps=config.model.sampler_steps)
        mode, distance = nearest(points)
        shares = jnp.bincount(mode, length=data.modes) / len(points)
        return {
            "reward": float(reward_of(points).mean()),
            "near_a_mode": float((distance < 3 * data.spread).mean()),
            "smallest_rewarded_mode": float(shares[::2].min()),
        }

    params = init(jax.random.key(config.seed), config.model.hidden_size, config.model.num_layers)
    start = {
        "params": params, "reference": jax.tree.map(jnp.copy, params), "optimizer": adam["pretraining"].init(params)
    }  # fmt: skip
    state = toy_loop.train("awm", config, workdir, start, advance, evaluate)

    # --- results
    result = {"name": "awm", "steps": config.training.steps, "samples": str(workdir / "samples.png")}
    result |= {f"{k}_before": v for k, v in evaluate({"params": state["reference"]}).items()}
    result |= {f"{k}_after": v for k, v in evaluate(state).items()}
    draw(workdir / "samples.png", modes, *(
        np.asarray(sample(p, jax.random.key(7), count=1024, steps=config.model.sampler_steps))
        for p in (state["reference"], state["params"])
    ))  # fmt: skip
    result["checkpoint"], result["metrics"] = str(workdir / "checkpoints"), str(workdir / "metrics.jsonl")
    stages.store_result(config, workdir, result)
    report(result)
    return result


def draw(path: Path, modes, before: np.ndarray, after: np.ndarray) -> None:
    """Samples of the pre-trained and of the final model beside each other; rewarded modes are crosses in green."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, points, title in zip(axes, (before, after), ("pre-trained", "after AWM"), strict=True):
        axis.scatter(*points.T, s=3, alpha=0.5)
        axis.scatter(*modes[::2].T, marker="x", color="tab:green", label="rewarded")
        axis.scatter(*modes[1::2].T, marker="x", color="tab:red", label="not rewarded")
        axis.set_title(title, fontsize=10)
        axis.set_aspect("equal")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def report(result: dict[str, Any]) -> None:
    say(f"\n{result['name']}: {result['steps']} steps")
    for key, what in (
        ("reward", "samples at rewarded modes"),
        ("near_a_mode", "samples within three deviations of a mode"),
        ("smallest_rewarded_mode", "samples at the rarest rewarded mode"),
    ):
        say(f"  share of {what}: {result[f'{key}_before']:.3f} before, {result[f'{key}_after']:.3f} after")
    for key in ("checkpoint", "metrics", "samples"):
        say(f"  {key:10} {result[key]}")


if __name__ == "__main__":
    command.start(run)
