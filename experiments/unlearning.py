"""A small benchmark of unlearning on fictional authors: every method on equal terms, and how easily it is undone.

    python -m experiments.unlearning --workdir=runs/unlearning [--methods=npo,simnpo] [--relearning_steps=10]

A model is taught all authors, another one, to compare with, all but those to forget. Each method (a config of configs/)
then makes the first model forget. Measured on the questions of each split: the probability of the right answer (per
token), the overlap of the greedy answer with it (ROUGE-L recall), the truth ratio, and whether the truth ratios on what
was to be forgotten differ from those of the model that never saw it (p-value). Last, the attack: the model learns half
of the forgotten questions again, and is asked the other half.

WORKDIR receives each run in a directory of its own, results.jsonl and table.md; what is finished is not done again.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import app, flags
from ml_collections import ConfigDict

import alignment.losses
from alignment import evaluation, objective, statistics
from alignment.data import authors, collating, rows, tokenizers
from alignment.training import mesh, state, step
from configs import common
from experiments import command, finetune, from_config, sampling, stages
from experiments.from_config import say

METHODS = ("grad_ascent", "grad_diff", "grad_diff_kl", "npo", "simnpo", "dpo_unlearn", "rmu", "sam_unlearn")
METHODS += ("npo_randomized_smoothing", "npo_gradient_penalty", "npo_curvature_penalty", "npo_weight_averaging")
SPLITS = ("forget", "retain", "holdout")
SIZES = {"hidden_size": 64, "intermediate_size": 176, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
LENGTHS = (authors.PROMPT_LENGTH, authors.COMPLETION_LENGTH)

LIST = flags.DEFINE_list("methods", list(METHODS), "Configs of methods, with commas between.")
RELEARNING = flags.DEFINE_integer("relearning_steps", 10, "Steps of the attack.")


def sized(config: ConfigDict) -> ConfigDict:
    """The config on the small model of this benchmark."""
    config.model.update(SIZES)
    config.checkpoints.export_hugging_face = False
    return config


def example(number: int, record: dict[str, Any], texts: Sequence[str], tokenizer) -> rows.Tokenized:
    """One question with several answers."""
    answers = tuple(np.asarray([*tokenizer.encode(text), tokenizer.eos_id], np.int32) for text in texts)
    return rows.Tokenized(number, np.asarray(rows.encode_prompt(record["prompt"], tokenizer), np.int32), answers)


@functools.cache
def _scorer(model):
    needs = statistics.needs_of(["policy_token_logps"])
    return jax.jit(lambda params, batch: statistics.compute(needs, model, params, {}, batch)["policy_token_logps"])


def known(model, params, tokenizer, records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Probability, truth ratio and overlap for every question: arrays `[N]`."""
    sides = 2 + authors.WRONG
    questions = [
        example(i, r, (r["completion"], r["paraphrase"], *r["wrong"]), tokenizer) for i, r in enumerate(records)
    ]
    batch = collating.collate_trees(questions, *LENGTHS, sides, pad_id=tokenizer.pad_id)
    logps, lengths = np.asarray(_scorer(model)(params, batch)).sum(-1), batch["mask"].sum(-1)
    drawn = sampling.complete(
        model, params, tokenizer, [q.prompt.tolist() for q in questions], jax.random.key(0),
        prompt_length=LENGTHS[0], completion_length=LENGTHS[1], temperature=0.0,
    )  # fmt: skip
    return {
        "probability": evaluation.answer_probability(logps[:, 0], lengths[:, 0]),
        "truth_ratio": evaluation.truth_ratio(logps[:, 1], lengths[:, 1], logps[:, 2:], lengths[:, 2:]),
        "overlap": evaluation.rouge_l_recall([d.text for d in drawn], [r["completion"] for r in records]),
    }


@functools.cache
def _relearner(model):
    terms = objective.bind({"sft": {}}, alignment.losses, "objective", ("",), ())
    optimizer = optax.adam(1e-3)
    losses = step.make_losses(model, {}, terms, (), ("",))
    return optimizer, jax.jit(step.make_step(losses, terms, (), ("",), optimizer))


def relearned(model, params, tokenizer, records: Sequence[dict[str, Any]], steps: int) -> Any:
    """The parameters after `steps` steps of supervised fine-tuning on all of the questions at once."""
    questions = [example(i, r, (r["completion"],), tokenizer) for i, r in enumerate(records)]
    batch = collating.collate_trees(questions, *LENGTHS, 1, pad_id=tokenizer.pad_id)
    optimizer, train = _relearner(model)
    train_state = state.create(params, optimizer, {}, jax.random.key(0))
    for _ in range(steps):
        train_state, _ = train(train_state, {}, batch)
    return train_state.params


def measure(model, params, tokenizer, seed: int, relearning_steps: int) -> dict[str, Any]:
    """All numbers of one model; the truth ratios on the forget set as a list."""
    facts = {split: authors.facts(split, seed) for split in SPLITS}
    of_splits = {split: known(model, params, tokenizer, records) for split, records in facts.items()}
    out = {f"{s}_{k}": float(np.mean(v)) for s, found in of_splits.items() for k, v in found.items()}
    # Every other question: of each author the attacker has some and not others.
    attacker, others = facts["forget"][::2], facts["forget"][1::2]
    again = relearned(model, params, tokenizer, attacker, relearning_steps)
    out["others_before"] = float(np.mean(of_splits["forget"]["probability"][1::2]))
    out["others_relearned"] = float(np.mean(known(model, again, tokenizer, others)["probability"]))
    return out | {"forget_truth_ratios": of_splits["forget"]["truth_ratio"].tolist()}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown, a row for each model."""
    columns = {
        "forget prob.": "forget_probability", "forget ROUGE-L": "forget_overlap",
        "forget truth ratio": "forget_truth_ratio", "p-value": "p_value",
        "retain prob.": "retain_probability", "retain ROUGE-L": "retain_overlap",
        "never seen prob.": "holdout_probability",
        "other half before": "others_before", "after the attack": "others_relearned",
    }  # fmt: skip
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, found in results.items():
        lines.append(f"| {name} | " + " | ".join(f"{found[key]:.3f}" for key in columns.values()) + " |")
    return "\n".join(lines) + "\n"


def run(methods: Sequence[str], workdir: Path, relearning_steps: int, prepare=sized) -> dict[str, dict[str, Any]]:
    """Trains what is missing and measures all; `prepare` changes every config before it runs."""
    if not methods:
        raise ValueError("--methods: empty; name a config of a method")
    workdir.mkdir(parents=True, exist_ok=True)
    device_mesh = mesh.make_mesh({"data": 1}, devices=jax.devices()[:1])
    of_methods = {name: prepare(importlib.import_module(f"configs.{name}").get_config()) for name in methods}
    for config in of_methods.values():
        config.before_workdir = str(workdir / "before")
    first = next(iter(of_methods.values()))
    configs = {"never taught": prepare(common.authors("retain")), "before": stages.config_before(first), **of_methods}
    path, results = workdir / "results.jsonl", {}
    if path.is_file():
        results = {r.pop("model"): r for r in map(json.loads, path.read_text().splitlines())}
    tokenizer = tokenizers.ByteTokenizer()
    model = from_config.build_model(first, tokenizer.vocab_size)[0]
    for name, config in configs.items():
        if name in results:
            continue
        directory = workdir / name.replace(" ", "_")
        finetune.run(config, directory)
        params = from_config.load_params("--workdir", str(directory), model, device_mesh)
        found = measure(model, params, tokenizer, config.seed, relearning_steps)
        retrained = results.get("never taught", found)["forget_truth_ratios"]
        found["p_value"] = evaluation.forget_quality(found["forget_truth_ratios"], retrained)[1]
        results[name] = found
        with path.open("a") as file:
            file.write(json.dumps({"model": name} | found) + "\n")
        say(table({name: found}))
    (workdir / "table.md").write_text(table({name: results[name] for name in configs}))
    return results


def main(_) -> None:
    with command.as_command():
        run(LIST.value, Path(command.WORKDIR.value), RELEARNING.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
