"""What an online run with several rewards, judges or preferences adds to its rollouts, and the front that it writes.

`config.rewards` names the objectives: their weighted sum is `rewards`, each of them is a column of `objective_rewards`,
in the alphabetical order of the names (a config keeps no other). `config.judges` says what a completion has to satisfy,
and `config.rollout.preferences` how prompts are told a preference:

* `arc`: two objectives, v = (cos t, sin t) with t even in [-45, 45] degrees, as in directional preference alignment;
* `simplex`: v from Dirichlet(1), as in multi-objective GFlowNets.

A preference stands before the prompt as whole numbers, round(100 v); kernels read it as `preference_weights`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from alignment import multi_objective
from alignment.data import rows
from alignment.rewards.runner import RewardReport, Rewards
from alignment.training import figures, rollouts
from experiments import prompt_sets, sampling

PREFERENCES = ("", "arc", "simplex")
_FAN = 5  # preferences that held-out prompts are told, in turn


def check(config: ConfigDict, prompts: Sequence[prompt_sets.Prompt], tokenizer) -> None:
    """ValueError, before any compilation, if preferences do not fit the rewards or the prompts."""
    kind, count = config.rollout.preferences, len(config.rewards)
    if kind not in PREFERENCES:
        raise ValueError(f"config.rollout.preferences: {kind!r} is not one of {', '.join(map(repr, PREFERENCES))}")
    if kind == "arc" and count != 2:
        raise ValueError(f"config.rollout.preferences: 'arc' is of two rewards; config.rewards has {count}")
    if kind == "simplex" and count < 2:
        raise ValueError("config.rollout.preferences: 'simplex' is of two rewards or more; config.rewards has one")
    point = config.evaluation.reference_point
    if len(point) not in (0, count):
        raise ValueError(
            f"config.evaluation.reference_point: must have one number for each of the {count} rewards, got {len(point)}"
        )
    if not kind:
        return
    widest = np.full(count, -1.0 if kind == "arc" else 1.0)
    longest = max(len(told(p, widest, tokenizer).tokens) for p in prompts)
    if longest > config.data.prompt_length:
        raise ValueError(
            f"config.data.prompt_length: with a preference before it a prompt has up to {longest} tokens, got "
            f"{config.data.prompt_length}"
        )


def columns(config: ConfigDict, prompts: Sequence[prompt_sets.Prompt]) -> list[str]:
    """The columns that rollouts of this run have beyond those of every run."""
    out = ["objective_rewards", "baseline_rewards", "prompt_baselines"]
    out += ["satisfied", "judgements"] if config.judges else []
    out += ["preference_weights"] if config.rollout.preferences else []
    return out + (["task_ids"] if task_names(prompts) else [])


def task_names(prompts: Sequence[prompt_sets.Prompt]) -> list[str]:
    """The tasks of the prompts by number, `task_ids`; none if a record does not name its `task`."""
    names = {p.record.get("task") for p in prompts}
    return [] if None in names else sorted(names)


# --- preferences


def draw(kind: str, count: int, objectives: int, seed: Sequence[int]) -> np.ndarray:
    """`count` preferences, f32 [count, objectives], as the prompts will tell them: in hundredths."""
    rng = np.random.default_rng(seed)
    if kind == "arc":
        angles = rng.uniform(-np.pi / 4, np.pi / 4, size=count)
        exact = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        exact = rng.dirichlet(np.ones(objectives), size=count)
    return rounded(exact)


def fan(kind: str, objectives: int) -> np.ndarray:
    """The preferences that held-out prompts are told: even over the arc, or from corner to corner."""
    if kind == "arc":
        angles = np.linspace(-np.pi / 4, np.pi / 4, _FAN)
        return rounded(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    corners = np.eye(objectives)
    edges = [np.linspace(corners[k], corners[k + 1], _FAN)[k > 0 :] for k in range(objectives - 1)]
    return rounded(np.concatenate(edges))


def rounded(preferences: np.ndarray) -> np.ndarray:
    return (np.round(100 * np.asarray(preferences)) / 100).astype(np.float32)


def tell(
    config: ConfigDict, prompts: Sequence[prompt_sets.Prompt], rng: jax.Array, tokenizer
) -> tuple[Sequence[prompt_sets.Prompt], np.ndarray | None]:
    """The prompts of a rollout with a preference before each, and the preferences; as they were if there are none."""
    kind = config.rollout.preferences
    if not kind:
        return prompts, None
    drawn = draw(kind, len(prompts), len(config.rewards), np.asarray(jax.random.key_data(rng)).tolist())
    return [told(p, v, tokenizer) for p, v in zip(prompts, drawn, strict=True)], drawn


def tell_fan(
    config: ConfigDict, prompts: Sequence[prompt_sets.Prompt], tokenizer
) -> tuple[Sequence[prompt_sets.Prompt], np.ndarray | None]:
    """The same for held-out prompts, which are told the preferences of `fan` in turn."""
    if not config.rollout.preferences:
        return prompts, None
    preferences = fan(config.rollout.preferences, len(config.rewards))
    preferences = preferences[np.arange(len(prompts)) % len(preferences)]
    return [told(p, v, tokenizer) for p, v in zip(prompts, preferences, strict=True)], preferences


def told(prompt: prompt_sets.Prompt, preference: np.ndarray, tokenizer) -> prompt_sets.Prompt:
    """The prompt with a preference before it; what rewards see of the prompt stays as it was."""
    numbers = " ".join(str(int(n)) for n in np.round(100 * preference))
    text = prompt.prompt
    text = f"{numbers} {text}" if isinstance(text, str) else [{"role": "system", "content": numbers}, *text]
    return prompt._replace(tokens=rows.encode_prompt(text, tokenizer))


# --- judges, and the columns of a rollout


def functions(config: ConfigDict) -> tuple[list, list[float]]:
    """What is called on every completion, and its weights in `rewards`: the rewards, then the judges with weight 0."""
    rewards, weights = prompt_sets.rewards(config.rewards)
    for name, entry in config.judges.items():
        if "weight" in (entry or {}):
            raise ValueError(f"config.judges.{name}.weight: a judge has none; every one must be satisfied")
    judges, _ = prompt_sets.rewards(config.judges, "judges")
    return [*rewards, *judges], [*weights, *[0.0] * len(judges)]


def _places(config: ConfigDict, names: Iterable[str], judges: bool = False) -> list[int]:
    """Columns of `Rewards.by_function`: functions first, then judges, then reward models (`reward_models.rewarder`)."""
    models = [name for name, entry in config.rewards.items() if entry and "checkpoint" in entry]
    order = [(name, False) for name in config.rewards if name not in models]
    order += [*((name, True) for name in config.judges), *((name, False) for name in models)]
    return [order.index((name, judges)) for name in names]


def by_objective(config: ConfigDict, got: Rewards) -> np.ndarray:
    """f32 [N, K], one column for each of `config.rewards`."""
    return got.by_function[:, _places(config, config.rewards)]


def verdicts(config: ConfigDict, got: Rewards) -> np.ndarray:
    """Bool [N, J]: a judge that fails or takes too long is not satisfied, and is counted and shown as a reward is.

    ValueError if a judge gave anything but true or false.
    """
    places = _places(config, config.judges, judges=True)
    values, failed = got.by_function[:, places], got.failed_by_function[:, places]
    if (wrong := ~np.isin(values, (0.0, 1.0)) & ~failed).any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"config.judges.{list(config.judges)[column]}: gave {values[row, column]:g} for completion {row}; a judge "
            "says True or False"
        )
    return (values > 0.5) & ~failed


def of_rollout(
    config: ConfigDict, read: Sequence[str], prompts: Sequence[prompt_sets.Prompt], got: Rewards,
    preferences: np.ndarray | None, rewarder: Callable[..., Rewards], tasks: Sequence[str],
) -> tuple[dict[str, np.ndarray], RewardReport]:  # fmt: skip
    """(columns of a rollout [rows, G, ...], report of the further calls)."""
    size = (len(prompts), len(got.rewards) // len(prompts))
    out, report = {"objective_rewards": by_objective(config, got).reshape(*size, -1)}, RewardReport()
    if preferences is not None:
        out["preference_weights"] = np.repeat(preferences[:, None], size[1], axis=1)
    if config.judges:
        out["verdicts"] = verdicts(config, got).reshape(*size, -1)
        out["satisfied"] = out["judgements"] = out["verdicts"].all(axis=-1)
    if {"baseline_rewards", "prompt_baselines"} & set(read):
        answers = [prompt_sets.demonstration_text(p, "an objective with baseline_rewards") for p in prompts]
        base = rewarder([p.prompt for p in prompts], answers, [p.record for p in prompts])
        out["prompt_baselines"], report = base.rewards, base.report
        out["baseline_rewards"] = np.repeat(base.rewards[:, None], size[1], axis=1)
    if "task_ids" in read:
        ids = np.array([tasks.index(p.record["task"]) for p in prompts], np.int32)
        out["task_ids"] = np.repeat(ids[:, None], size[1], axis=1)
    return out, report


def logged(config: ConfigDict, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of each reward, where there are several, and the pass rate of each judge."""
    means = batch["objective_rewards"].mean(axis=(0, 1))
    out = {f"reward_{k}": float(v) for k, v in zip(config.rewards, means, strict=True)} if len(means) > 1 else {}
    if config.judges:
        rates = batch["verdicts"].mean(axis=(0, 1))
        out |= {f"satisfied_{k}": float(v) for k, v in zip(config.judges, rates, strict=True)}
    return out


# --- the front


def mean_rewards(
    config: ConfigDict,
    model,
    params: Any,
    tokenizer,
    prompts: Sequence[prompt_sets.Prompt],
    rewarder: Callable[..., Rewards],
) -> np.ndarray:
    """Mean of each reward over samples of the prompts, f[K], at the temperature and with the samples of the config."""
    count, size = config.evaluation.samples, min(len(prompts), config.rollout.prompts)
    engine = rollouts.sampling_engine(
        model, group_size=count, completion_length=config.data.completion_length, eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id, temperature=config.evaluation.temperature,
    )  # fmt: skip
    found = []
    for first in range(0, len(prompts), size):
        part = list(prompts[first : first + size])
        filled = part + [part[0]] * (size - len(part))  # one shape, one compilation
        tokens, mask = rollouts.pad_prompts([p.tokens for p in filled], config.data.prompt_length, tokenizer.pad_id)
        drawn = engine(params, tokens, mask, jax.random.key(7))
        texts = sampling.texts(tokenizer, drawn.tokens, drawn.mask)[: len(part) * count]
        repeated = [p for p in part for _ in range(count)]
        got = rewarder([p.prompt for p in repeated], texts, [p.record for p in repeated])
        found.append(by_objective(config, got))
    return np.concatenate(found).astype(np.float64).mean(axis=0)


def maximised(config: ConfigDict) -> tuple[list[str], np.ndarray]:
    """(names of the objectives on the front, their signs): a reward of negative weight is minimised, "-NAME" there."""
    signs = np.array([-1.0 if (entry or {}).get("weight", 1.0) < 0 else 1.0 for entry in config.rewards.values()])
    return [f"-{name}" if sign < 0 else name for name, sign in zip(config.rewards, signs, strict=True)], signs


class Point(NamedTuple):
    preference: list[float] | None  # that the prompts were told
    rewards: list[float]  # mean of each objective, maximised


def points(rewards: np.ndarray, preferences: np.ndarray | None) -> list[Point]:
    """Mean rewards of an evaluation [prompts, samples, K]: one point, or one for each preference that was told."""
    if preferences is None:
        return [Point(None, rewards.mean(axis=(0, 1)).tolist())]
    kinds, which = np.unique(preferences, axis=0, return_inverse=True)
    which = which.reshape(-1)
    return [Point(kind.tolist(), rewards[which == n].mean(axis=(0, 1)).tolist()) for n, kind in enumerate(kinds)]


def write_points(workdir: Path, config: ConfigDict, at: int, found: Sequence[Point]) -> None:
    """Adds an evaluation to WORKDIR/pareto.jsonl, in place of what a run that was killed wrote from there on.

    A run with one reward has no front, and writes nothing.
    """
    if not found:
        return
    names, _ = maximised(config)
    path = workdir / "pareto.jsonl"
    before = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    lines = [line for line in before if line["iteration"] < at]
    for point in found:
        rewards = dict(zip(names, point.rewards, strict=True))
        lines.append({"iteration": at, "preference": point.preference, "rewards": rewards})
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.replace(path)


def front(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Draws WORKDIR/pareto.png; the result's `hypervolume` of the last evaluation, above the reference point."""
    lines = [json.loads(line) for line in (workdir / "pareto.jsonl").read_text().splitlines()]
    names, _ = maximised(config)
    values = np.array([[line["rewards"][n] for n in names] for line in lines], np.float64)
    at = np.array([line["iteration"] for line in lines])
    reference = np.asarray(config.evaluation.reference_point or values[at == at[0]].min(axis=0), np.float64)
    figures.draw_front(values, names, workdir / "pareto.png", colour=at, colour_label="iteration", reference=reference)
    last = values[at == at[-1]].astype(np.float32)
    volume = multi_objective.hypervolume(last, np.ones(len(last), bool), reference.astype(np.float32))
    return {"hypervolume": float(volume), "reference_point": reference.tolist(), "front": str(workdir / "pareto.png")}
