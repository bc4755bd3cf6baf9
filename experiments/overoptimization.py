"""Measures how far trained reward models can be optimised: gold and proxy scores against KL, by best-of-n and by PPO.

    python -m experiments.overoptimization --config=configs/overoptimization.py --workdir=DIR [--config.members=5 ...]

WORKDIR receives, in this order: policy/ (the start, a run of experiments.finetune), pool.npz (its samples on held-out
prompts with their gold rewards), evaluation_pairs.jsonl (more of them, rightly labelled) and for each seed seedS/pairs.jsonl (its samples on training prompts in pairs, labelled
by the gold reward, some labels flipped), seedS/memberK/ (the reward models), seedS/best_of_n.jsonl, seedS/ppo_NAME/ (runs of experiments.reinforce) and seedS/ppo_NAME.jsonl (their
checkpoints, scored). Each of these is a stage: the same command goes on where it was stopped, and what is finished is
not done again. At the end curves.jsonl holds all points, table.md the peaks and figure.png the curves.

Scores are gains over the start: (mean - mean of the pool) / deviation of the pool, so that gold and every proxy begin at
0 and have one scale. KL is that of whole completions to the start, in nats.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from alignment.data import corpus, rows
from alignment.rewards import overoptimization as laws
from alignment.training import checkpoints, figures, mesh
from configs import common, overoptimization
from experiments import finetune, from_config, gold_reward, reinforce, reward_models, sampling
from experiments.from_config import say

_BATCH = 512  # samples at a time

Combine = Callable[[np.ndarray], np.ndarray]  # scores of the members [..., K] to one reward [...]


def run(config: ConfigDict, workdir: Path) -> list[dict[str, Any]]:
    """All stages that are not done yet; returns the points of all curves."""
    common.check_keys(config, overoptimization.base(), free=overoptimization.FREE)
    overoptimization.check_numbers(config)
    combinations = {
        name: combination(f"config.ensembles.{name}", entry) for name, entry in config.ensembles.to_dict().items()
    }
    finetune.check_writable(workdir)
    keep_config(config, workdir)
    device_mesh = mesh.make_mesh(config.policy.mesh)

    # --- the start, and the pool of its samples
    finetune.run(config.policy, workdir / "policy")
    _, tokenizer, model, start = from_config.load_run("config.policy", str(workdir / "policy"), device_mesh)
    lengths = {k: config.policy.data[k] for k in ("prompt_length", "completion_length")}

    def draw(params, samples: int) -> gold_reward.Samples:
        return gold_reward.sample(model, params, tokenizer, samples=samples, temperature=1.0, **lengths)

    held_out = corpus.prompts("test")
    pool = stored_pool(workdir / "pool.npz", lambda: draw(start, config.best_of_n.samples * len(held_out)))
    prompts = prompts_of(len(pool["gold"]))
    shown = f"mean {pool['gold'].mean():.3f}, deviation {pool['gold'].std():.3f}, best {pool['gold'].max():.2f}"
    say(f"gold reward of {len(pool['gold'])} samples of the start: {shown}")

    def pairs(split: str, size: int, seed: int, noise: float) -> list[dict[str, Any]]:
        return pairs_of_start(config, split, size, seed, noise, model, start, tokenizer)

    evaluation = workdir / "evaluation_pairs.jsonl"
    stage(evaluation, lambda: pairs("test", config.evaluation_pairs, 0, 0.0))

    points = []
    for seed in config.seeds:
        here = workdir / f"seed{seed}"

        # --- reward models
        members = [here / f"member{k}" for k in range(config.members)]
        stage(here / "pairs.jsonl", lambda seed=seed: pairs("train", config.pairs, seed, config.label_noise))
        for k, directory in enumerate(members):
            files = here / "pairs.jsonl", evaluation
            finetune.run(member_config(config, 1000 * seed + k, workdir / "policy", *files), directory)
        scorer = reward_models.load_scorer(
            "config.reward_model", list(map(str, members)), device_mesh, standardise=True
        )
        scores = scorer(prompts, pool["texts"].tolist())
        scale = {name: f(scores) for name, f in {"single": first, **combinations}.items()}
        scale = {name: (values.mean(), values.std()) for name, values in scale.items()}
        gold_scale = pool["gold"].mean(), pool["gold"].std()

        # --- best of n
        def best_of_n(seed=seed, scores=scores, scale=scale):
            groups = [x.reshape(-1, len(held_out), *x.shape[1:]).swapaxes(0, 1) for x in (scores, pool["gold"])]
            found = best_of_n_points(*groups, combinations, scale, gold_scale, config.best_of_n.largest)
            return [{"seed": seed, **point} for point in found]

        points += stage(here / "best_of_n.jsonl", best_of_n)

        # --- PPO
        for name in config.optimised:
            combine = combinations.get(name, first)
            ppo = here / f"ppo_{name}"
            own = ppo_config(config, seed, name, workdir / "policy", members)
            reinforce.run(own, ppo)
            with_head, _ = from_config.build_model(own, tokenizer.vocab_size)

            def of_checkpoints(
                seed=seed, ppo=ppo, name=name, combine=combine, scorer=scorer, scale=scale, with_head=with_head
            ):
                of = {"seed": seed, "method": "ppo", "reward": name}
                out = [{**of, "iteration": 0, "kl": 0.0, "proxy": 0.0, "gold": 0.0}]
                for at in sorted(int(p.name) for p in (ppo / "checkpoints").iterdir() if p.name.isdigit()):
                    params = from_config.load_params("ppo", str(ppo), with_head, device_mesh, step=at)
                    params = {k: params[k] for k in start}  # without the value head
                    samples = draw(params, config.checkpoint_samples)
                    proxies = combine(scorer(prompts_of(len(samples.texts)), samples.texts))
                    kl = gold_reward.kl_to_start(model, params, start, samples, temperature=1.0)
                    gains = {"proxy": gain(proxies, scale[name]), "gold": gain(samples.rewards, gold_scale)}
                    out.append({**of, "iteration": at, "kl": kl, **gains})
                return out

            points += stage(here / f"ppo_{name}.jsonl", of_checkpoints)

    # --- what came out
    write_lines(workdir / "curves.jsonl", points)
    text = table(points)
    (workdir / "table.md").write_text(text)
    figures.draw_overoptimization(points, workdir / "figure.png")
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


def stage(path: Path, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
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


def stored_pool(path: Path, make: Callable[[], gold_reward.Samples]) -> dict[str, np.ndarray]:
    """`texts` and `gold` [N], drawn and written if they are not there."""
    if not path.is_file():
        samples = make()
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, texts=np.array(samples.texts), gold=samples.rewards)
        temporary.replace(path)
    with np.load(path) as stored:
        return dict(stored)


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


def pairs_of_start(
    config: ConfigDict, split: str, size: int, seed: int, noise: float, model, params, tokenizer
) -> list[dict[str, Any]]:
    """Pairs of two samples each of a prompt, the one of the higher gold reward chosen, then some flipped."""
    rng = np.random.default_rng([seed, corpus.SPLITS.index(split)])
    prompts = rng.choice(corpus.prompts(split), size=size).tolist()
    ids = [rows.encode_prompt(p, tokenizer) for p in prompts for _ in range(2)]
    key = jax.random.fold_in(jax.random.key(seed), corpus.SPLITS.index(split))
    lengths = {k: config.policy.data[k] for k in ("prompt_length", "completion_length")}
    drawn = sampling.complete(model, params, tokenizer, ids, key, temperature=1.0, batch_size=_BATCH, **lengths)
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


def gain(values: np.ndarray, scale: tuple[float, float]) -> float:
    """The mean above the start's, in deviations of the start's samples."""
    return float((np.mean(values) - scale[0]) / max(scale[1], 1e-9))


def best_of_n_points(
    scores: np.ndarray, gold: np.ndarray, combinations: Mapping[str, Combine], scale: Mapping, gold_scale, largest: int
) -> list[dict[str, Any]]:
    """Scores [P, N, K] of the members and gold rewards [P, N]: the points of best-of-n of every reward.

    `single` is the mean of the curves of all members, each taken alone.
    """
    out = []
    for n in (2**i for i in range(largest.bit_length())):
        kl = float(laws.best_of_n_kl(jnp.float32(n)))

        def point(proxy, scaled, n=n):
            chosen = (laws.best_of_n_score(proxy, x, n=n) for x in (proxy, gold))
            return [gain(np.asarray(x), s) for x, s in zip(chosen, (scaled, gold_scale), strict=True)]

        alone = [scores[..., k] for k in range(scores.shape[-1])]
        of = {"single": np.mean([point(x, (x.mean(), x.std())) for x in alone], axis=0).tolist()}
        of |= {name: point(f(scores), scale[name]) for name, f in combinations.items()}
        out += [
            {"method": "best_of_n", "reward": name, "n": n, "kl": kl, "proxy": proxy, "gold": true}
            for name, (proxy, true) in of.items()
        ]
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
    with finetune.as_command():
        workdir = Path(finetune.WORKDIR.value)
        run(finetune.CONFIG.value, workdir)
        for name in ("table.md", "figure.png", "curves.jsonl"):
            print(workdir / name)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
