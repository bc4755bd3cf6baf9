"""Measures how far trained reward models can be optimised: gold and proxy scores against KL, by best-of-n and by PPO.

    python -m experiments.overoptimization --config=configs/overoptimization.py --workdir=DIR [--config.members=5 ...]

WORKDIR receives, in this order:

* policy/: the start, a run of experiments.finetune; pool.npz: its samples on held-out prompts with their gold rewards;
  evaluation_pairs.jsonl: more of them in pairs, rightly labelled;
* for each seed seedS/pairs.jsonl (samples on training prompts in pairs, labelled by the gold reward, some labels
  flipped), seedS/memberK/ (the reward models), seedS/pool_scores.npz (their scores of the pool), seedS/best_of_n.jsonl,
  seedS/ppo_NAME/ (runs of experiments.reinforce) and seedS/ppo_NAME.jsonl (their checkpoints, scored);
* curves.jsonl, all points; table.md, the peaks; figure.png, the curves.

Each of these is a stage: the same command goes on where it was stopped, and what is finished is not done again.

Scores are gains over the start, (mean - mean of the pool) / deviation of the pool, so that gold and every proxy begin
at 0 and have one scale. KL is that of whole completions to the start, in nats.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from alignment.data import corpus, rows
from alignment.evaluation import best_of_n
from alignment.rewards import overoptimization as laws
from alignment.training import checkpoints, mesh, proxy_figures
from configs import common, overoptimization
from experiments import (
    command,
    finetune,
    from_config,
    gold_reward,
    reinforce,
    reward_models,
    sampling,
)
from experiments.from_config import say

_BATCH = 512  # samples at a time

Combine = Callable[[np.ndarray], np.ndarray]  # scores of the members [..., K] to one reward [...]


class Start(NamedTuple):
    """The policy that everything begins with."""

    model: Any
    params: Any
    tokenizer: Any
    lengths: Mapping[str, int]
    device_mesh: Any

    def draw(self, params: Any, samples: int) -> gold_reward.Samples:
        """Samples of these parameters on held-out prompts in turn, with their gold rewards."""
        return gold_reward.sample(self.model, params, self.tokenizer, samples=samples, temperature=1.0, **self.lengths)


def run(config: ConfigDict, workdir: Path) -> list[dict[str, Any]]:
    """All stages that are not done yet; returns the points of all curves."""
    common.check_keys(config, overoptimization.base(), free=overoptimization.FREE)
    overoptimization.check_numbers(config)
    combinations = {
        name: combination(f"config.ensembles.{name}", entry) for name, entry in config.ensembles.to_dict().items()
    }
    command.check_writable(workdir)
    keep_config(config, workdir)
    device_mesh = mesh.make_mesh(config.policy.mesh)

    # --- the start, a pool of its samples, and pairs to evaluate reward models on
    policy = workdir / "policy"
    finetune.run(config.policy, policy)
    _, tokenizer, model, params = from_config.load_run("config.policy", str(policy), device_mesh)
    lengths = {k: config.policy.data[k] for k in ("prompt_length", "completion_length")}
    start = Start(model, params, tokenizer, lengths, device_mesh)
    held_out = len(corpus.prompts("test"))

    def pool_of_start() -> dict[str, np.ndarray]:
        samples = start.draw(params, config.best_of_n.samples * held_out)
        return {"texts": np.array(samples.texts), "gold": samples.rewards}

    pool = stored(workdir / "pool.npz", pool_of_start)
    shown = f"mean {pool['gold'].mean():.3f}, deviation {pool['gold'].std():.3f}, best {pool['gold'].max():.2f}"
    say(f"gold reward of {len(pool['gold'])} samples of the start: {shown}")
    evaluation = workdir / "evaluation_pairs.jsonl"
    lines_of(evaluation, lambda: pairs_of_start(start, "test", config.evaluation_pairs, 0, 0.0))

    points = []
    for seed in config.seeds:
        here = workdir / f"seed{seed}"

        # --- reward models
        pairs = here / "pairs.jsonl"
        lines_of(pairs, lambda seed=seed: pairs_of_start(start, "train", config.pairs, seed, config.label_noise))
        members = [here / f"member{k}" for k in range(config.members)]
        for k, member in enumerate(members):
            finetune.run(member_config(config, 1000 * seed + k, policy, pairs, evaluation), member)
        score = reward_models.load_scorer(
            "config.reward_model", [str(m) for m in members], device_mesh, standardise=True
        )

        def scores_of_pool(score=score) -> dict[str, np.ndarray]:
            return {"scores": score(prompts_of(len(pool["texts"])), pool["texts"].tolist())}

        scores = stored(here / "pool_scores.npz", scores_of_pool)["scores"]

        # --- best of n
        def of_pool(seed=seed, scores=scores) -> list[dict[str, Any]]:
            groups = [x.reshape(-1, held_out, *x.shape[1:]).swapaxes(0, 1) for x in (scores, pool["gold"])]
            found = best_of_n_points(*groups, combinations, config.best_of_n.largest)
            return [{"seed": seed, **point} for point in found]

        points += lines_of(here / "best_of_n.jsonl", of_pool)

        # --- PPO
        for name in config.optimised:
            own, ppo = ppo_config(config, seed, name, policy, members), here / f"ppo_{name}"
            reinforce.run(own, ppo)
            combine = combinations.get(name, first)

            def of_run(own=own, ppo=ppo, combine=combine, score=score, scores=scores) -> list[dict[str, Any]]:
                scales = scale_of(combine(scores)), scale_of(pool["gold"])
                found = checkpoint_points(start, own, ppo, config.checkpoint_samples, score, combine, *scales)
                return [{"seed": own.seed, "method": "ppo", "reward": ppo.name[4:], **point} for point in found]

            points += lines_of(here / f"ppo_{name}.jsonl", of_run)

    # --- what came out
    write_lines(workdir / "curves.jsonl", points)
    text = table(points)
    (workdir / "table.md").write_text(text)
    proxy_figures.draw_overoptimization(points, workdir / "figure.png")
    say(text)
    return points


# --- stages ----------------------------------------------------------------------------------------------------------


def keep_config(config: ConfigDict, workdir: Path) -> None:
    """Writes the config, or says that WORKDIR is another's: its stages would be taken for this one's."""
    ours, path = checkpoints.as_json(config.to_dict()), workdir / "config.json"
    if path.is_file() and (theirs := json.loads(path.read_text())) != ours:
        differing = [k for k in ours if ours[k] != theirs.get(k)]
        raise ValueError(f"--workdir={workdir}: belongs to a config with other {', '.join(differing)}; choose another")
    path.write_text(json.dumps(ours, indent=1))


def lines_of(path: Path, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The lines of `path`, made and written if they are not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, make())
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.replace(path)


def stored(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of `path`, made and written if they are not there."""
    if not path.is_file():
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **make())
        temporary.replace(path)
    with np.load(path) as arrays:
        return dict(arrays)


def prompts_of(count: int) -> list[str]:
    """The held-out prompts in turn, as `gold_reward.sample` takes them."""
    held_out = corpus.prompts("test")
    return [held_out[i % len(held_out)] for i in range(count)]


def on_policy_of(config: ConfigDict, own: ConfigDict, seed: int, policy: Path) -> ConfigDict:
    """A run's config that starts from the policy's exported parameters, and shares its tokens."""
    own = ConfigDict(own.to_dict())
    own.seed, own.model.hugging_face = seed, str(policy / "hugging_face")
    own.data.tokenizer = config.policy.data.tokenizer or config.policy.model.hugging_face or "bytes"
    own.data.prompt_length = config.policy.data.prompt_length
    own.data.completion_length = config.policy.data.completion_length
    return own


def pairs_of_start(start: Start, split: str, size: int, seed: int, noise: float) -> list[dict[str, Any]]:
    """Pairs of two samples each of a prompt, the one of the higher gold reward chosen, then some flipped."""
    rng = np.random.default_rng([seed, corpus.SPLITS.index(split)])
    prompts = rng.choice(corpus.prompts(split), size=size).tolist()
    ids = [rows.encode_prompt(p, start.tokenizer) for p in prompts for _ in range(2)]
    key = jax.random.fold_in(jax.random.key(seed), corpus.SPLITS.index(split))
    drawn = sampling.complete(
        start.model, start.params, start.tokenizer, ids, key, temperature=1.0, batch_size=_BATCH, **start.lengths
    )
    out = []
    for prompt, *pair in zip(prompts, drawn[::2], drawn[1::2], strict=True):
        texts = [x.text for x in pair]
        gold = [corpus.gold_reward(prompt, text) for text in texts]
        if gold[0] == gold[1] or not all(texts):
            continue
        chosen = int(np.argmax(gold)) ^ int(rng.random() < noise)
        out.append({"prompt": prompt, "chosen": texts[chosen], "rejected": texts[1 - chosen]})
    say(f"{split} pairs of seed {seed}: {len(out)} of {size} kept, the others have equal gold rewards or an empty side")
    if not out:
        raise ValueError("config.pairs: no pair has sides of different gold reward; draw more")
    return out


def member_config(config: ConfigDict, seed: int, policy: Path, pairs: Path, evaluation: Path) -> ConfigDict:
    """A reward model: those of one seed see the same pairs in another order, and begin with another head."""
    own = on_policy_of(config, config.reward_model, seed, policy)
    own.data.kind, own.data.source, own.data.eval_source = "pairs", str(pairs), str(evaluation)
    own.data.too_long = "truncate"  # a sample that did not end has no room for an end token
    return own


def ppo_config(config: ConfigDict, seed: int, name: str, policy: Path, members: Sequence[Path]) -> ConfigDict:
    """PPO of a seed on one member or on an ensemble of them."""
    own = on_policy_of(config, config.ppo, seed, policy)
    directories = [str(m) for m in (members if name in config.ensembles else members[:1])]
    entry = {"checkpoint": directories, "standardise": True, **config.ensembles.to_dict().get(name, {})}
    own.rewards = ConfigDict({"proxy": entry})
    return own


# --- numbers ---------------------------------------------------------------------------------------------------------


def first(scores: np.ndarray) -> np.ndarray:
    """The reward that is one member."""
    return scores[..., 0]


def combination(key: str, entry: Mapping[str, Any]) -> Combine:
    """What a section of config.ensembles says; ValueError before anything is trained if there is no such function."""
    entry = dict(entry)
    function = reward_models.combination(key, entry.pop("combine", ""))
    if function is None:
        raise ValueError(f"{key}.combine: missing; name how the members become one reward")
    return lambda scores: np.asarray(function(jnp.asarray(scores), **entry))


def scale_of(values: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of the start's samples."""
    return float(np.mean(values)), float(np.std(values))


def gain(means: Any, scale: tuple[float, float]) -> Any:
    """Means above the start's, in deviations of the start's samples."""
    return (means - scale[0]) / max(scale[1], 1e-9)


def best_of_n_points(
    scores: np.ndarray, gold: np.ndarray, combinations: Mapping[str, Combine], largest: int
) -> list[dict[str, Any]]:
    """Scores [P, N, K] of the members and gold rewards [P, N]: the points of best-of-n of every reward.

    `single` is the mean of the curves of all members, each taken alone.
    """
    counts = [2**i for i in range(largest.bit_length())]

    def curve(proxy: np.ndarray) -> np.ndarray:
        found = best_of_n.best_of_n_curve(proxy, gold, counts=counts)
        return np.array([found.kl, gain(found.proxy, scale_of(proxy)), gain(found.gold, scale_of(gold))])

    curves = {"single": np.mean([curve(scores[..., k]) for k in range(scores.shape[-1])], axis=0)}
    curves |= {name: curve(combine(scores)) for name, combine in combinations.items()}
    return [
        {"method": "best_of_n", "reward": name, "n": n, "kl": kl, "proxy": proxy, "gold": true}
        for name, columns in curves.items()
        for n, kl, proxy, true in zip(counts, *columns.tolist(), strict=True)
    ]


def checkpoint_points(
    start: Start, config: ConfigDict, workdir: Path, samples: int, score: reward_models.Scorer, combine: Combine,
    proxy_scale: tuple[float, float], gold_scale: tuple[float, float],
) -> list[dict[str, Any]]:  # fmt: skip
    """The start and every checkpoint of a PPO run: KL, proxy and gold of the same samples on held-out prompts."""
    with_head, _ = from_config.build_model(config, start.tokenizer.vocab_size)
    out = [{"iteration": 0, "kl": 0.0, "proxy": 0.0, "gold": 0.0}]
    last, every = config.training.iterations, config.checkpoints.every
    for at in sorted({*range(every, last + 1, every), last}):  # not those that a stop has left in between
        params = from_config.load_params("config.ppo", str(workdir), with_head, start.device_mesh, step=at)
        params = {name: params[name] for name in start.params}  # without the value head
        drawn = start.draw(params, samples)
        proxies = combine(score(prompts_of(samples), drawn.texts))
        kl = gold_reward.kl_to_start(start.model, params, start.params, drawn, temperature=1.0)
        proxy, gold = gain(proxies.mean(), proxy_scale), gain(drawn.rewards.mean(), gold_scale)
        out.append({"iteration": at, "kl": kl, "proxy": float(proxy), "gold": float(gold)})
    return out


def table(points: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: where the gold score of each curve peaks and where it ends, mean ± deviation over the seeds."""
    curves: dict[tuple[str, str], dict[int, list[Mapping]]] = {}
    for p in points:
        curves.setdefault((p["method"], p["reward"]), {}).setdefault(p["seed"], []).append(p)
    head = ["method", "reward", "seeds", "peak gold", "KL there", "last gold", "last proxy", "last KL", "lost"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (method, reward), of_seeds in curves.items():
        rows = []
        for curve in of_seeds.values():
            gold = np.array([p["gold"] for p in curve])
            peak, last = curve[int(np.argmax(gold))], curve[-1]
            lost = float(laws.overoptimization(jnp.asarray(gold, jnp.float32)))
            rows.append([peak["gold"], peak["kl"], last["gold"], last["proxy"], last["kl"], lost])
        columns = np.array(rows).T
        cells = [f"{c.mean():.2f} ± {c.std(ddof=1):.2f}" if len(c) > 1 else f"{c[0]:.2f}" for c in columns]
        lines.append("| " + " | ".join([method, reward, str(len(rows)), *cells]) + " |")
    return "\n".join(lines) + "\n"


def main(_) -> None:
    with command.as_command():
        workdir = Path(command.WORKDIR.value)
        run(command.CONFIG.value, workdir)
        for name in ("table.md", "figure.png", "curves.jsonl"):
            print(workdir / name)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
