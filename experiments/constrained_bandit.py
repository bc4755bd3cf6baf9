"""Two rewards that rise while the utility turns over: their sum against constraints at the proxy points, on a bandit.

    python -m experiments.constrained_bandit --workdir=DIR [--bandits=5]

Runs `alignment.analysis.summed_rewards_bandit`, takes the proxy points from it (`joint_proxy_point`), and holds them
with `mu_constrained_bandit` and `xi_constrained_bandit`; then searches for better ones with the simplex of Nelder and
Mead in one further mu run for each seed, which is never reset. A seed is a bandit of its own (all rewards drawn anew)
and the noise of all its runs. WORKDIR receives runs.jsonl, table.md and figure.png. Moskovitz et al., 2023,
arXiv 2310.04373.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from alignment import analysis
from alignment.multi_objective import proxy_points
from alignment.training import proxy_figures
from experiments import command
from experiments.from_config import say

SEEDS = flags.DEFINE_integer("bandits", 5, "Bandits, each with all of the runs.")

_STATES, _ARMS, _STEPS = 32, 64, 2000
_POINT, _SLOPE = 1.25, 4.0  # of the utility
_SETTINGS = {"learning_rate": 1.0, "draws": 8}
_MULTIPLIER_RATE = 0.03
_BLOCK, _BLOCKS, _CALLS = 100, 5, 30  # of the search: steps between looks, looks until it gives up, calls


def bandit(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rewards [S, A, 2] that agree as two reward models do, by what they share, and utilities [S, A]."""
    common, own = jax.random.split(key)
    shared = jax.random.normal(common, (_STATES, _ARMS, 1))
    rewards = shared + 0.5 * jax.random.normal(own, (_STATES, _ARMS, 2))
    return rewards, analysis.turning_utilities(rewards, point=_POINT, slope=_SLOPE)


def problems(seeds: int) -> tuple[jax.Array, jax.Array]:
    """`bandit` of each seed: rewards [seeds, S, A, 2] and utilities [seeds, S, A]."""
    return jax.vmap(bandit)(jax.random.split(jax.random.key(1), seeds))


def noise(seeds: int) -> jax.Array:
    """The key of each seed's runs."""
    return jax.random.split(jax.random.key(0), seeds)


def constrained(method, steps: int):
    """`method` for several bandits at once, from (key, logits, multipliers, rewards, utilities, thresholds) of each."""
    reference = jnp.zeros((_STATES, _ARMS))

    def one(key, logits, multipliers, rewards, utilities, thresholds):
        return method(
            key, logits, reference, rewards, utilities, multipliers, thresholds=tuple(thresholds), steps=steps,
            multiplier_learning_rate=_MULTIPLIER_RATE, **_SETTINGS,
        )  # fmt: skip

    return jax.jit(jax.vmap(one))


def histories(
    rewards: jax.Array, utilities: jax.Array, steps: int
) -> tuple[dict[str, analysis.ConstrainedHistory], np.ndarray]:
    """The sum of the rewards, the proxy points [seeds, 2] seen on its way, and both constraints held there.

    All methods start at the reference, which is uniform. numpy arrays, the seeds first.
    """
    seeds = len(rewards)
    start = jnp.zeros((_STATES, _ARMS))

    @jax.jit
    @jax.vmap
    def summed(key, rewards, utilities):
        return analysis.summed_rewards_bandit(key, start, start, rewards, utilities, steps=steps, **_SETTINGS)

    seen = jax.tree.map(np.asarray, summed(noise(seeds), rewards, utilities))
    thresholds = np.stack([proxy_points.joint_proxy_point(*x) for x in zip(seen.returns, seen.utilities, strict=True)])
    logits, multipliers = jnp.zeros((seeds, _STATES, _ARMS)), jnp.zeros((seeds, 2, 2))
    inputs = rewards, utilities, jnp.asarray(thresholds, jnp.float32)
    found = {"sum of rewards": seen}
    for name, method in (("mu", analysis.mu_constrained_bandit), ("xi", analysis.xi_constrained_bandit)):
        history = constrained(method, steps)(noise(seeds), logits, multipliers, *inputs)
        found[name] = jax.tree.map(np.asarray, history)
    return found, thresholds


def run(workdir: Path, seeds: int = 5) -> dict[str, list[dict[str, Any]]]:
    """All runs; returns by method what stands in runs.jsonl."""
    if seeds < 1:
        raise ValueError(f"--bandits: must be at least 1, got {seeds}")
    command.check_writable(workdir)
    rewards, utilities = problems(seeds)
    keys = noise(seeds)
    curves, thresholds = histories(rewards, utilities, _STEPS)
    block = constrained(analysis.mu_constrained_bandit, _BLOCK)
    searches = [search(keys[s], block, rewards[s], utilities[s], thresholds[s]) for s in range(seeds)]
    lines = {name: numbers(history, thresholds) for name, history in curves.items()}
    lines["search"] = searches
    (workdir / "runs.jsonl").write_text(
        "".join(json.dumps({"method": k, "seed": s, **x}) + "\n" for k, v in lines.items() for s, x in enumerate(v))
    )
    text = table(lines)
    (workdir / "table.md").write_text(text)
    proxy_figures.draw_proxy_points(curves, thresholds.mean(axis=0), workdir / "figure.png")
    say(text)
    return lines


def search(key, block, rewards, utilities, first: np.ndarray) -> dict[str, Any]:
    """Nelder-Mead over the thresholds of one run that goes on: each look trains until they are met, or gives up."""
    logits, multipliers, blocks = jnp.zeros((_STATES, _ARMS)), jnp.zeros((2, 2)), 0
    looks: list[tuple[float, list[float]]] = []  # utility and mean rewards where a look ended

    def one(*arrays):
        return [x[None] for x in arrays]

    def evaluate(thresholds: np.ndarray) -> float:
        nonlocal logits, multipliers, blocks
        for _ in range(_BLOCKS):
            state = jax.random.fold_in(key, blocks), logits, multipliers, rewards, utilities
            history = block(*one(*state, jnp.asarray(thresholds, jnp.float32)))
            logits, multipliers, blocks = history.logits[0], history.last[0], blocks + 1
            returns = history.returns[0, -1].tolist()
            if proxy_points.reached(returns, thresholds.tolist()):
                break
        looks.append((float(history.utilities[0, -1]), returns))
        return looks[-1][0]

    simplex = np.stack([first, first * [0.8, 1.0], first * [1.0, 0.8]])
    found = proxy_points.nelder_mead(proxy_points.cached(evaluate), simplex, max_calls=_CALLS)
    best, returns = max(looks)
    return {
        "thresholds": found.thresholds.tolist(), "returns": returns, "best": best, "last": looks[-1][0],
        "steps": _BLOCK * blocks, "calls": found.calls, "converged": found.converged,
    }  # fmt: skip


def numbers(history: analysis.ConstrainedHistory, thresholds: np.ndarray) -> list[dict[str, Any]]:
    """Of each seed: where a run ends (mean of its last tenth) and the best that it passed."""
    tail = history.utilities.shape[1] // 10
    return [
        {
            "thresholds": thresholds[s].tolist(),
            "returns": history.returns[s, -tail:].mean(axis=0).tolist(),
            "best": float(history.utilities[s].max()),
            "last": float(history.utilities[s, -tail:].mean()),
            "steps": history.utilities.shape[1],
        }
        for s in range(len(thresholds))
    ]


def table(lines: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown, mean ± deviation over the seeds."""

    def cell(values) -> str:
        return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"

    out = ["| method | seeds | reward 1 | reward 2 | best utility | last utility | steps |", "|" + "---|" * 7]
    for name, runs in lines.items():
        columns = [[r["returns"][0] for r in runs], [r["returns"][1] for r in runs]]
        columns += [[r[key] for r in runs] for key in ("best", "last")]
        steps = f"{np.mean([r['steps'] for r in runs]):.0f}"
        out.append(f"| {name} | {len(runs)} | {' | '.join(map(cell, columns))} | {steps} |")
    return "\n".join(out) + "\n"


def main(_) -> None:
    with command.as_command():
        run(Path(command.WORKDIR.value), SEEDS.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
