"""Whose samples, and whether bad ones are pushed down: objectives on a bandit of 100 arms (arXiv 2404.14367)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import analysis
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 20, "reuses": (1, 10), "learning_rates": (1.0,), "every": 10}
OBJECTIVES = {
    "best of n": analysis.best_of_n_objective,
    "reward-weighted": analysis.reward_weighted_objective,
    "best of n, rest down": functools.partial(analysis.best_of_n_with_negatives_objective, beta=0.5),
    "DPO": analysis.dpo_objective,
    "IPO": analysis.ipo_objective,
    "REINFORCE": analysis.reinforce_objective,
}
SAMPLERS = {"reference": analysis.offline_bandit, "policy": analysis.on_policy_bandit}
ARMS, REFERENCE_MEAN, REFERENCE_WIDTH = 100, 35.0, 12.0
PEAKS = {"far": 60.0, "near": 40.0}


@functools.partial(jax.jit, static_argnames=("sampler", "rounds", "inner_steps"))
def mean_rewards(sampler, number, learning_rates, peaks, keys, *, rounds, inner_steps):
    """The policy's mean reward after every gradient step, f[rates, peaks, seeds, rounds * inner_steps]."""
    arms = jnp.arange(ARMS, dtype=jnp.float32)
    reference = -jnp.square((arms - REFERENCE_MEAN) / REFERENCE_WIDTH) / 2

    def objective(*samples):  # by number, so that all of them are one program
        return jax.lax.switch(number, list(OBJECTIVES.values()), *samples)

    def one(learning_rate, peak, key):
        history = SAMPLERS[sampler](
            key, reference, analysis.peak_rewards(arms, peak, jnp.float32(10.0)), objective=objective,
            rounds=rounds, inner_steps=inner_steps, learning_rate=learning_rate,
        )  # fmt: skip
        return history.rewards.reshape(-1)

    of_seeds = jax.vmap(one, (None, None, 0))
    return jax.vmap(jax.vmap(of_seeds, (None, 0, None)), (0, None, None))(learning_rates, peaks, keys)


def tables(*, seeds=5, steps=1000, reuses=(1, 10, 100, 1000), learning_rates=(0.1, 0.3, 1.0, 3.0, 10.0), every=20):
    """Every objective, sampler and peak with the learning rate of the largest mean reward over the second half of the
    steps; what stands for the end is the mean over their last tenth."""
    rates, peaks = jnp.array(learning_rates), jnp.array(list(PEAKS.values()))
    keys = jax.random.split(jax.random.key(0), seeds)
    curves, reused, ends = [], [], []
    for sampler in SAMPLERS:
        for reuse in reuses if sampler == "policy" else (1,):
            for number, name in enumerate(OBJECTIVES):
                sizes = {"rounds": steps // reuse, "inner_steps": reuse}
                values = np.asarray(mean_rewards(sampler, number, rates, peaks, keys, **sizes))
                for of_peak, peak in enumerate(PEAKS):
                    late = values[:, of_peak, :, steps // 2 :].mean((1, 2))
                    best = np.where(np.isfinite(late), late, -np.inf).argmax()  # too large a rate may overflow
                    for seed, rewards in enumerate(values[best, of_peak]):
                        end = float(rewards[-max(steps // 10, 1) :].mean())
                        labels = {"objective": name, "sampler": sampler, "peak": peak, "seed": seed}
                        labels |= {"learning_rate": learning_rates[best]}
                        reused.append(labels | {"steps_per_draw": reuse, "reward": end})
                        if reuse == 1:
                            taken = range(every, steps + 1, every)
                            curves += [labels | {"step": s, "reward": float(rewards[s - 1])} for s in taken]
                            ends.append(labels | {"reward": end})
    return {"curves": curves, "steps_per_draw": reused, "ends": ends}


def figure(tables):
    drawn, axes = style.panels(2, 2, sharey=True)
    titles = {"reference": "draws of the reference, peak far", "policy": "draws of the policy, peak far"}
    for axis, (sampler, title) in zip(axes[0], titles.items(), strict=True):
        for name in OBJECTIVES:
            rows = style.select(tables["curves"], objective=name, sampler=sampler, peak="far")
            style.band(axis, rows, "step", "reward", label=name)
        axis.set(title=title, xlabel="gradient steps")
    for name, marker in zip(OBJECTIVES, style.MARKERS, strict=False):
        rows = style.select(tables["steps_per_draw"], objective=name, sampler="policy", peak="far")
        style.band(axes[1, 0], rows, "steps_per_draw", "reward", marker=marker, markersize=5)
    axes[1, 0].set(title="the policy's draws used again", xlabel="gradient steps per draw", xscale="log")
    places = [(peak, sampler) for peak in PEAKS for sampler in SAMPLERS]
    for number, name in enumerate(OBJECTIVES):
        for place, (peak, sampler) in enumerate(places):
            rewards = [r["reward"] for r in style.select(tables["ends"], objective=name, sampler=sampler, peak=peak)]
            colour, x = style.COLOURS[number], place + (number - 2.5) * 0.12
            axes[1, 1].plot([x, x], [min(rewards), max(rewards)], color=colour, alpha=0.4)
            axes[1, 1].plot(x, np.mean(rewards), style.MARKERS[number], color=colour, markersize=6)
    axes[1, 1].set(title="after the last step")
    axes[1, 1].set_xticks(range(len(places)), [f"{peak},\n{sampler}" for peak, sampler in places])
    for axis in axes[:, 0]:
        axis.set_ylabel("mean reward of the policy")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn
