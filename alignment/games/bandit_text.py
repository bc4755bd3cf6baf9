"""Bandits as a language model meets them: a scene with named arms, the history as text, and what the answer means.

The history is written in full (`raw_history`), per arm (`summary_history`), or per arm with the numbers of an optimal
explorer (`guided_history`, algorithm-guided support). Plain Python on the host; no model is involved.
"""

import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from alignment import checks
from alignment.games import bandits


class Scene(NamedTuple):
    """What the arms are called, what choosing one is called, and what the model is told before it starts."""

    unit: str
    names: tuple[str, ...]
    story: str


def _scene(unit: str, names: Sequence[str], story: str) -> Scene:
    return Scene(unit, tuple(names), story)


_LETTERS = string.ascii_uppercase[:20]
_CLOTHES = (
    "coat", "shirt", "skirt", "scarf", "jacket", "sweater", "dress", "vest", "hat", "socks", "gloves", "belt", "jeans",
    "shorts", "boots", "sandals", "blouse", "cap", "poncho", "tie",
)  # fmt: skip
# At least 20 arms each; the words are this library's, the scenes are the paper's.
SCENES = {
    "buttons": _scene("button", _LETTERS, "You stand before a row of buttons. Each pays out at a rate of its own."),
    "videos": _scene(
        "video", [f"video {x}" for x in _LETTERS], "You choose the video that a site plays next. Viewers may like it."
    ),
    "clothes": _scene("item", _CLOTHES, "You choose the item that a shop shows in its window. Visitors may buy it."),
    "advertisements": _scene(
        "advertisement",
        [f"advertisement {x}" for x in _LETTERS],
        "You choose the advertisement that a page shows. Readers may click on it.",
    ),
}


def scene(name: str, arms: int) -> Scene:
    """The scene with its first `arms` names.

    Raises:
      ValueError: no such scene, or fewer than 2 or more than 20 arms.
    """
    if name not in SCENES:
        raise ValueError(f"scene must be one of {', '.join(SCENES)}, got {name!r}")
    found = SCENES[name]
    checks.positive_integer("arms", arms)
    if not 2 <= arms <= len(found.names):
        raise ValueError(f"arms must be an integer in [2, {len(found.names)}] for the scene {name!r}, got {arms}")
    return found._replace(names=found.names[:arms])


def read_arm(scene: Scene, text: str, rng: np.random.Generator) -> tuple[int, bool]:
    """(arm, False) of an answer that is an arm's name, whatever its case and the space around; else (any arm, True).

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE): an answer that names no arm is replaced by an arm drawn evenly
    and flagged.
    """
    names = [name.lower() for name in scene.names]
    said = text.strip().lower()
    if said in names:
        return names.index(said), False
    return int(rng.integers(len(names))), True


def counts(scene: Scene, actions: Sequence[int], rewards: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Pulls and summed rewards of each arm.

    Raises:
      ValueError: as many actions as rewards are needed, each an arm of the scene.
    """
    actions, rewards, arms = np.asarray(actions, int), np.asarray(rewards, np.float64), len(scene.names)
    if actions.shape != rewards.shape or actions.ndim != 1:
        raise ValueError(f"a history has one reward per action, got {actions.shape} actions, {rewards.shape} rewards")
    if actions.size and not 0 <= actions.min() <= actions.max() < arms:
        raise ValueError(f"actions must lie in [0, {arms}), got {actions.min()} to {actions.max()}")
    return np.bincount(actions, minlength=arms), np.bincount(actions, weights=rewards, minlength=arms)


def raw_history(scene: Scene, actions: Sequence[int], rewards: Sequence[float]) -> str:
    """One line per pull, in order: the arm's name and the reward.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE), raw history.
    """
    counts(scene, actions, rewards)
    return "".join(f"{scene.names[a]}: {_number(r)}\n" for a, r in zip(actions, rewards, strict=True))


def summary_history(scene: Scene, actions: Sequence[int], rewards: Sequence[float]) -> str:
    """One line per arm: how often it was chosen and the mean of its rewards (0 if never).

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE), summarised history.
    """
    pulls, sums = counts(scene, actions, rewards)
    return "".join(
        f"{name}: {n} times, mean {s / max(n, 1):.2f}\n" for name, n, s in zip(scene.names, pulls, sums, strict=True)
    )


def guided_history(scene: Scene, actions: Sequence[int], rewards: Sequence[float], *, alpha: float = 0.5) -> str:
    """`summary_history` with the two numbers of UCB behind each arm; an arm never chosen has an infinite bonus.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE), algorithm-guided support.
    """
    pulls, sums = counts(scene, actions, rewards)
    value, bonus = bandits.ucb_guide(pulls.astype(np.int32), sums.astype(np.float32), alpha=alpha)
    lines = zip(scene.names, pulls, np.asarray(value), np.asarray(bonus), strict=True)
    return "".join(f"{name}: {n} times, value {v:.2f}, bonus {b:.2f}\n" for name, n, v, b in lines)


HISTORIES: dict[str, Callable[[Scene, Sequence[int], Sequence[float]], str]] = {
    "raw": raw_history,
    "summary": summary_history,
    "guided": guided_history,
}


def contextual_history(scene: Scene, contexts: Sequence[str], actions: Sequence[int], rewards: Sequence[float]) -> str:
    """Three lines per round: the context, the arm's name, the reward. A summary per arm would forget the contexts.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE), raw history of a contextual bandit.
    """
    counts(scene, actions, rewards)
    rounds = zip(contexts, actions, rewards, strict=True)
    return "".join(f"context: {c}\nchoice: {scene.names[a]}\nreward: {_number(r)}\n" for c, a, r in rounds)


def guided_contextual_history(
    scene: Scene,
    contexts: Sequence[str],
    guides: Sequence[tuple[Sequence[float], Sequence[float]]],
    actions: Sequence[int],
    rewards: Sequence[float],
) -> str:
    """`contextual_history` with the numbers that LinUCB gave each arm in that round, before the choice.

    Args:
      guides: of each round, what `bandits.linucb_guide` returned then.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE), algorithm-guided support of a contextual bandit.
    """
    counts(scene, actions, rewards)
    out = []
    for context, (values, bonuses), action, reward in zip(contexts, guides, actions, rewards, strict=True):
        arms = zip(scene.names, np.asarray(values), np.asarray(bonuses), strict=True)
        out.append(f"context: {context}\n" + "".join(f"{n}: value {v:.2f}, bonus {b:.2f}\n" for n, v, b in arms))
        out.append(f"choice: {scene.names[action]}\nreward: {_number(reward)}\n")
    return "".join(out)


def question(scene: Scene) -> str:
    """What ends every prompt; the answer is one of the names."""
    return f"Next {scene.unit}:"


def prompt(scene: Scene, history: str, *, story: bool = True) -> str:
    """The story and the names of the arms (or neither, to save tokens), the history so far, the question."""
    told = f"{scene.story}\nChoose among: {', '.join(scene.names)}.\n" if story else ""
    return told + history + question(scene)


def with_examples(examples: Sequence[tuple[str, str]], prompt: str) -> str:
    """Prompts with an optimal explorer's answers, put before a prompt: algorithm distillation in context, no training.

    Paper: Nie et al., 2024, arXiv 2410.06238 (EVOLvE), with five examples.
    """
    return "".join(f"{text} {answer}\n\n" for text, answer in examples) + prompt


def _number(reward: float) -> str:
    return f"{float(reward):.3f}".rstrip("0").rstrip(".")
