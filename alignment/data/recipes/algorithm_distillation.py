"""Algorithm distillation: the choices of an optimal explorer on many bandits, as prompts and completions to imitate.

Nie et al., 2024 (EVOLvE: Evaluating and Optimizing LLMs For Exploration), arXiv 2410.06238. UCB teaches; every pull is
one record, whose prompt tells the history before it and whose completion is the name of UCB's arm, so that the loss
falls on choices and never on rewards. UCB is deterministic given the history: a model that has learnt it has loss 0.
"""

from typing import Any

import jax
import numpy as np

from alignment.games import bandit_text, bandits


def trajectories(
    key: jax.Array, *, number: int, arms: int, horizon: int, gap: float, alpha: float
) -> tuple[np.ndarray, bandits.BanditRun]:
    """Means `[number, arms]` of that many Bernoulli bandits, and UCB's runs on them, both on the host."""

    def play(key: jax.Array) -> tuple[jax.Array, bandits.BanditRun]:
        of_bandit, of_run = jax.random.split(key)
        means = bandits.bernoulli_means(of_bandit, arms=arms, gap=gap)

        def teacher(key, pulls, sums):
            return bandits.ucb_arm(key, pulls, sums, alpha=alpha)

        return means, bandits.play_bandit(of_run, means, explorer=teacher, horizon=horizon)

    return jax.device_get(jax.jit(jax.vmap(play))(jax.random.split(key, number)))


def records(
    key: jax.Array,
    *,
    bandits_number: int,
    arms: int = 3,
    horizon: int = 30,
    gap: float = 0.5,
    alpha: float = 0.5,
    scene: str = "buttons",
    history: str = "summary",
    story: bool = False,
    rename: bool = True,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One record {prompt, completion} per pull of UCB, and counts.

    Args:
      key: a PRNG key.
      bandits_number: how many bandits are played, at least 1.
      arms, horizon, gap: of each Bernoulli bandit; errors of cloning add up over a run, so short ones teach best.
      alpha: of UCB.
      scene: of `bandit_text.SCENES`.
      history: of `bandit_text.HISTORIES`; the numbers of "guided" are UCB's own, and what is left to learn is argmax.
      story: tell the scene and the names of the arms first.
      rename: give the arms of every bandit names in a new order, so that no name is better than another by its place.

    Raises:
      ValueError: a number out of range, an unknown scene or history.
    """
    if bandits_number < 1:
        raise ValueError(f"bandits_number must be at least 1, got {bandits_number}")
    if history not in bandit_text.HISTORIES:
        raise ValueError(f"history must be one of {', '.join(bandit_text.HISTORIES)}, got {history!r}")
    plain, tell = bandit_text.scene(scene, arms), bandit_text.HISTORIES[history]
    of_runs, of_names = jax.random.split(key)
    means, runs = trajectories(of_runs, number=bandits_number, arms=arms, horizon=horizon, gap=gap, alpha=alpha)
    out, best = [], 0
    for number, (actions, rewards) in enumerate(zip(runs.actions, runs.rewards, strict=True)):
        order = np.arange(arms)
        if rename:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(of_names, number), arms))
        named = plain._replace(names=tuple(plain.names[i] for i in order))
        best += int((actions == means[number].argmax()).sum())
        for t, action in enumerate(actions):
            told = tell(named, actions[:t].tolist(), rewards[:t].tolist())
            text = bandit_text.prompt(named, told, story=story)
            out.append({"prompt": text, "completion": f" {named.names[action]}"})
    return out, {"bandits": bandits_number, "records": len(out), "choices_of_the_best_arm": best}
