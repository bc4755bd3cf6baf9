"""Commands planted in data, obeyed or not, by how a model is told who speaks (ISE, arXiv 2410.09102)."""

import tempfile
from pathlib import Path

import numpy as np

from alignment.data import injections
from experiments import injection
from experiments.reproductions import style


def tiny(config):
    """A run of two steps, for the tests."""
    config.model.update({"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2})
    config.model.num_kv_heads = 1
    config.data.update({"corpus_size": 32, "corpus_eval_size": 8, "batch_size": 8})
    config.training.update({"steps": 2, "eval_every": 2, "log_every": 1})
    config.checkpoints.every = 2
    return config


SMALL = {"methods": ("text", "ise"), "seeds": 1, "prompts": 4, "prepare": tiny}


def tables(
    *, methods=("text", "delimiters", "ise"), seeds=3, prompts=injection.PROMPTS, prepare=lambda c: c, workdir=None
):
    """`workdir` keeps the runs, and those that are finished are not run again; None: a temporary directory."""
    with tempfile.TemporaryDirectory() as temporary:
        results = injection.run(methods, ("planted",), seeds, Path(workdir or temporary), prepare, prompts)
    rows = [
        {"method": r["method"], "seed": r["seed"], "attack": attack, "in_training": attack == injections.SEEN}
        | {"obeyed_share": r[f"{attack}_success"], "accuracy": r[f"{attack}_accuracy"]}
        for r in results
        for attack in injections.ATTACKS
    ]
    clean = [{"method": r["method"], "seed": r["seed"], "accuracy": r["clean_accuracy"]} for r in results]
    return {"attacks": rows, "clean": clean}


def mean(rows, column, **values) -> float:
    """Over the seeds, of the rows with these values."""
    return float(np.mean([row[column] for row in style.select(rows, **values)]))


def figure(tables):
    drawn, axis = style.panels()
    attacks, methods = style.distinct(tables["attacks"], "attack"), style.distinct(tables["attacks"], "method")
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        values = np.array(
            [[r["obeyed_share"] for r in style.select(tables["attacks"], method=method, attack=a)] for a in attacks]
        )
        places = np.arange(len(attacks)) + (number - (len(methods) - 1) / 2) * width
        axis.bar(places, values.mean(axis=1), 0.9 * width, color=style.COLOURS[number], alpha=0.8, label=method)
        axis.plot(np.repeat(places, values.shape[1]), values.ravel(), "k.", markersize=4)
    axis.set_xticks(range(len(attacks)), [f"{a}\n(trained on)" if a == injections.SEEN else a for a in attacks])
    axis.tick_params(axis="x", labelsize=9)
    axis.set(ylabel="planted command obeyed\n(share of prompts)", xlabel="attack", ylim=(0, 1))
    axis.legend()
    return drawn
