"""A small benchmark of prompt injection: plain text, delimiters and instruction segment embeddings (ISE) compared.

    python -m experiments.injection --workdir=runs/injection [--seeds=3] [--models=text,ise] [--training=planted,clean]

The task is that of `alignment.data.injections`: the user's command is to be obeyed, one planted in the data is not.
Every method is `configs/ise.py` with or without levels and with or without delimiters; it trains on data of which every
other row has a command planted plainly ("planted"), or none has ("clean"). Measured greedily, on prompts drawn with
another seed: accuracy without an attack; under each attack accuracy and how often the planted command was obeyed;
robust accuracy, the lowest over the attacks. Wu et al., 2024, arXiv 2410.09102.

WORKDIR receives each run in a directory of its own, results.jsonl, table.md and figure.png; what is finished is not
done again.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from alignment.data import fields, hierarchy, injections, tokenizers
from alignment.training import mesh
from experiments import command, finetune, from_config, sampling
from experiments.from_config import say

# Delimiters of the messages, and how many instruction levels the model has.
METHODS = {
    "text": (injections.PLAIN, 0),
    "delimiters": (injections.DELIMITERS, 0),
    "ise": (injections.PLAIN, 4),
    "delimiters+ise": (injections.DELIMITERS, 4),
}
TRAINING = {"planted": "injections", "clean": "injections:clean"}
PROMPTS = 512  # of each attack, and without one

LIST = flags.DEFINE_list("models", list(METHODS), "Methods, with commas between.")
TRAINED = flags.DEFINE_list("training", list(TRAINING), "What they are trained on, with commas between.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each, with seeds from 0; data and parameters follow from the seed.")


def config_of(method: str, training: str, seed: int) -> ConfigDict:
    """`configs/ise.py` made into one of the runs."""
    config = importlib.import_module("configs.ise").get_config()
    delimiters, config.model.num_instruction_levels = METHODS[method]
    config.data.delimiters.update(delimiters)
    config.data.source, config.seed = TRAINING[training], seed
    return config


def measure(config: ConfigDict, model, params, tokenizer, count: int) -> dict[str, float]:
    """{"clean_accuracy", "ATTACK_accuracy", "ATTACK_success", "robust_accuracy"}, shares of the prompts."""
    found: dict[str, float] = {}
    for attack in ("", *injections.ATTACKS):
        rng = np.random.default_rng(97)  # the same prompts for every run, and but for the wrapping for every attack
        records = [injections.record(rng, attack) for _ in range(count)]
        prompts = [
            hierarchy.encode_prompt(
                fields.messages("injections", "messages", r["messages"][:-1]), tokenizer, config.data.delimiters
            )
            for r in records
        ]
        drawn = sampling.complete(
            model, params, tokenizer, [ids for ids, _ in prompts], jax.random.key(0),
            prompt_length=config.data.prompt_length, completion_length=config.data.completion_length, temperature=0.0,
            levels=[levels for _, levels in prompts] if model.config.num_instruction_levels else None,
        )  # fmt: skip
        said = [d.text for d in drawn]
        right = [s == r["answer"] for s, r in zip(said, records, strict=True)]
        found[f"{attack or 'clean'}_accuracy"] = float(np.mean(right))
        if attack:
            obeyed = [s == r["planted"] for s, r in zip(said, records, strict=True)]
            found[f"{attack}_success"] = float(np.mean(obeyed))
    found["robust_accuracy"] = min(found[f"{attack}_accuracy"] for attack in injections.ATTACKS)
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, a row for each method and training: mean ± deviation over the seeds."""
    columns = {"accuracy without attack": "clean_accuracy"}
    columns |= {f"obeyed: {a}{' (seen)' if a == injections.SEEN else ''}": f"{a}_success" for a in injections.ATTACKS}
    columns |= {"robust accuracy": "robust_accuracy"}
    lines = ["| training | method | seeds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 3) + "|"]
    for training, method in dict.fromkeys((r["training"], r["method"]) for r in results):
        runs = [r for r in results if (r["training"], r["method"]) == (training, method)]
        cells = [[r[key] for r in runs] for key in columns.values()]
        shown = [f"{np.mean(c):.3f}" + (f" ± {np.std(c, ddof=1):.3f}" if len(c) > 1 else "") for c in cells]
        lines.append(f"| {training} | {method} | {len(runs)} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """How often each attack is obeyed, a panel per training: bars are means over the seeds, dots the seeds. A PNG."""
    from matplotlib.figure import Figure

    trainings, methods = (list(dict.fromkeys(r[key] for r in results)) for key in ("training", "method"))
    figure = Figure(figsize=(6.4 * len(trainings), 3.8), layout="constrained")
    axes = figure.subplots(1, len(trainings), squeeze=False, sharey=True)
    places, width = np.arange(len(injections.ATTACKS)), 0.8 / len(methods)
    for axis, training in zip(axes[0], trainings, strict=True):
        for number, method in enumerate(methods):
            runs = [r for r in results if (r["training"], r["method"]) == (training, method)]
            if not runs:
                continue
            values = np.array([[r[f"{attack}_success"] for attack in injections.ATTACKS] for r in runs])
            at = places + (number - (len(methods) - 1) / 2) * width
            axis.bar(at, values.mean(axis=0), 0.9 * width, label=method, alpha=0.8)
            axis.plot(np.broadcast_to(at, values.shape).ravel(), values.ravel(), "k.", markersize=3)
        axis.set_xticks(places, [f"{a}\n(seen)" if (a, training) == (injections.SEEN, "planted") else a
                                 for a in injections.ATTACKS])  # fmt: skip
        axis.set_title(f"trained on {training} data")
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3, axis="y")
        axis.legend(fontsize=8)
    axes[0][0].set_ylabel("planted command obeyed, share of prompts")
    figure.savefig(path, dpi=110)


def run(
    methods: Sequence[str], trainings: Sequence[str], seeds: int, workdir: Path, prepare=lambda config: config,
    count: int = PROMPTS,
) -> list[dict[str, Any]]:  # fmt: skip
    """Trains and measures what is missing; `prepare` changes every config before it runs."""
    for flag, names, allowed in (("models", methods, METHODS), ("training", trainings, TRAINING)):
        if not names or set(names) - set(allowed):
            raise ValueError(f"--{flag}: must name some of {', '.join(allowed)}, got {', '.join(names) or 'nothing'}")
    if seeds < 1:
        raise ValueError(f"--seeds: must be at least 1, got {seeds}")
    command.check_writable(workdir)
    device_mesh = mesh.make_mesh({"data": 1}, devices=jax.devices()[:1])
    tokenizer = tokenizers.ByteTokenizer()
    path, results = workdir / "results.jsonl", {}
    if path.is_file():
        stored = map(json.loads, path.read_text().splitlines())
        results = {(r["training"], r["method"], r["seed"]): r for r in stored}
    models: dict[int, Any] = {}  # by their levels, so that sampling compiles once for each
    wanted = [(training, method, seed) for training in trainings for seed in range(seeds) for method in methods]
    for training, method, seed in wanted:
        if (training, method, seed) in results:
            continue
        config = prepare(config_of(method, training, seed))
        directory = workdir / f"{training}_{method}_{seed}"
        finetune.run(config, directory)
        levels = config.model.num_instruction_levels
        model = models.setdefault(levels, from_config.build_model(config, tokenizer.vocab_size)[0])
        params = from_config.load_params("--workdir", str(directory), model, device_mesh)
        found = {"training": training, "method": method, "seed": seed}
        found |= measure(config, model, params, tokenizer, count)
        results[training, method, seed] = found
        with path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        say(table([found]))
    ordered = sorted(results, key=lambda k: (list(TRAINING).index(k[0]), list(METHODS).index(k[1]), k[2]))
    kept = [results[key] for key in ordered if key in wanted]
    (workdir / "table.md").write_text(table(kept))
    draw(kept, workdir / "figure.png")
    say(table(kept))
    return kept


def main(_) -> None:
    with command.as_command():
        run(LIST.value, TRAINED.value, SEEDS.value, Path(command.WORKDIR.value))


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
