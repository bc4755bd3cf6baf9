"""Interpolates finished runs of one model, evaluates every mixture, and draws the front: rewarded soups.

    python -m experiments.soup --config=configs/linear_scalarization.py --runs=DIR,DIR --workdir=DIR [--points=5]

`--config` is an online config: its rewards and held-out prompts say how a mixture is evaluated. `--runs` are WORKDIRs
of finished runs (online or offline) that began with one model, or Hugging Face directories; or one run with
`config.model.output_heads`, whose heads are then mixed. WORKDIR receives pareto.jsonl (weights and mean rewards of
every mixture), pareto.png and result.json. Rame et al., 2023, arXiv 2306.04488.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from alignment.models import decoder, multi_head
from alignment.training import figures, mesh, references
from configs import common, online
from experiments import command, from_config, prompt_sets, reward_models, several_rewards, stages
from experiments.from_config import say

RUNS = flags.DEFINE_list("runs", [], "WORKDIRs of finished runs, with commas between.")
POINTS = flags.DEFINE_integer("points", 5, "Weights from one run to the next, both ends included.")


def grid(count: int, points: int) -> list[tuple[float, ...]]:
    """All weights of `count` models that are multiples of 1 / (points - 1)."""
    if points < 2:
        raise ValueError(f"--points: must be at least 2, got {points}")
    steps = points - 1
    parts = (p for p in itertools.product(range(steps + 1), repeat=count) if sum(p) == steps)
    return [tuple(n / steps for n in part) for part in sorted(parts, reverse=True)]


def mixtures(runs: Sequence[str], points: int, device_mesh):
    """(tokenizer, a generator of (weights, model, parameters)) of soups of the runs, or of one run's heads."""
    loaded = [from_config.load_run("--runs", run, device_mesh) for run in runs]
    _, tokenizer, model, params = loaded[0]
    if len(runs) == 1:
        if multi_head.NAME not in params:
            raise ValueError("--runs: needs two runs or more, or one with config.model.output_heads")

        def of_heads():
            for weights in grid(params[multi_head.NAME].shape[0], points):
                config, mixed = multi_head.mix_heads(model.config, params, weights)
                yield weights, decoder.build(config), mixed

        return tokenizer, of_heads()
    first = from_config.describe_model(model.config)
    for run, (_, _, other, _) in zip(runs, loaded, strict=True):
        if differing := [k for k, v in from_config.describe_model(other.config).items() if first[k] != v]:
            raise ValueError(f"--runs: {run} is of another model than {runs[0]}: {', '.join(differing)}")
    of_runs = [p for *_, p in loaded]
    return tokenizer, ((w, model, references.rewarded_soup(of_runs, w)) for w in grid(len(runs), points))


def run(config: ConfigDict, runs: Sequence[str], workdir: Path, points: int = 5) -> dict[str, Any]:
    """Evaluates every mixture; returns what it prints."""
    common.check_keys(config, online.base(), free=online.FREE)
    online.check_numbers(config)
    if config.rollout.preferences:
        raise ValueError("config.rollout.preferences: a soup is told its preference by its weights; set it to ''")
    if len(config.rewards) < 2:
        raise ValueError("config.rewards: a front needs two rewards or more")
    command.check_writable(workdir)
    device_mesh = mesh.make_mesh(config.mesh)
    functions, reward_weights = several_rewards.functions(config)
    models = reward_models.bind(config.rewards, device_mesh)
    tokenizer, mixed = mixtures(runs, points, device_mesh)
    _, held_out = prompt_sets.load(config, tokenizer)
    if not held_out:
        raise ValueError("config.data.eval_source: a soup is evaluated on held-out prompts, and there are none")
    (names, signs), lines = several_rewards.maximised(config), []
    with reward_models.rewarder(functions, reward_weights, models, config.reward_runner) as rewarder:
        for weights, model, params in mixed:
            means = signs * several_rewards.mean_rewards(config, model, params, tokenizer, held_out, rewarder)
            lines.append({"weights": weights, "rewards": dict(zip(names, means.tolist(), strict=True))})
            shown = ", ".join(f"{name} {mean:.3f}" for name, mean in lines[-1]["rewards"].items())
            say(f"weights {' '.join(f'{w:.2f}' for w in weights)}: {shown}")
    (workdir / "pareto.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = np.array([list(line["rewards"].values()) for line in lines])
    labels = [" ".join(f"{w:.2f}" for w in line["weights"]) for line in lines]
    figures.draw_front(values, names, workdir / "pareto.png", labels=labels)
    result = {"runs": list(runs), "mixtures": lines, "front": str(workdir / "pareto.png")}
    stages.store_result(config, workdir, result)
    return result


def main(_) -> None:
    with command.as_command():
        run(command.CONFIG.value, RUNS.value, Path(command.WORKDIR.value), POINTS.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir", "runs"])
    app.run(main)
