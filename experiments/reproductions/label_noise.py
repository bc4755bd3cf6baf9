"""Preference losses on flipped labels: a linear Bradley-Terry model, and the committed ablation of the tiny LM."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alignment import losses
from experiments.reproductions import style

SMALL = {"seeds": 2, "pairs": 20, "many_pairs": 40, "steps": 5, "rates": (0.0, 0.2)}
FEATURES, SCALE = 20, 4.0
ABLATION = Path(__file__).resolve().parents[2] / "docs" / "noisy_labels.md"
NAMES = {"dpo": "DPO", "cdpo": "cDPO", "robust_dpo": "robust DPO", "lcpo": "LCPO"}


def _loss(method, margins, flip_rate, annotators, state, count):
    """(losses, memory of the next step); cDPO and robust DPO are told the mean flip rate, LCPO is told nothing."""
    zero = jnp.zeros_like(margins)
    if method == "lcpo":
        hyper = {"beta": 1.0, "num_annotators": count, "eta_0": 0.9, "alpha": 0.1}
        values, aux = losses.lcpo.loss(margins, zero, zero, zero, annotators, state, **hyper)
        return values, losses.lcpo.update(state, aux, **hyper)
    told = {"dpo": {}, "cdpo": {"label_smoothing": flip_rate}, "robust_dpo": {"flip_rate": flip_rate}}[method]
    return getattr(losses, method)(margins, zero, zero, zero, beta=1.0, **told), state


@functools.partial(jax.jit, static_argnames=("method", "pairs", "steps"))
def fitted(method, rates, keys, *, pairs, steps, learning_rate):
    """Fits of linear rewards: (weights f[S, D], true weights f[S, D], estimated label accuracies f[S, A]).

    A pair is the difference of its two completions' features; annotator k flips a share rates[k] of the labels, which
    are draws of the Bradley-Terry model. The policy's log-ratio is linear in the features, the reference's is zero.
    """
    count, optimizer = rates.shape[0], optax.adam(learning_rate)

    def one(key):
        for_truth, for_features, for_labels, for_flips = jax.random.split(key, 4)
        truth = jax.random.normal(for_truth, (FEATURES,))
        truth *= SCALE / jnp.linalg.norm(truth)
        differences = jax.random.normal(for_features, (pairs, FEATURES))
        annotators = jnp.arange(pairs) % count
        right = jax.random.bernoulli(for_labels, jax.nn.sigmoid(differences @ truth))
        labels = right ^ jax.random.bernoulli(for_flips, rates[annotators])
        oriented = jnp.where(labels[:, None], differences, -differences)

        def step(carry, _):
            weights, state, moments = carry

            def mean_loss(weights):
                values, later = _loss(method, oriented @ weights, jnp.mean(rates), annotators, state, count)
                return jnp.mean(values), later

            gradient, later = jax.grad(mean_loss, has_aux=True)(weights)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(weights, updates), later, moments), None

        start = jnp.zeros(FEATURES)
        memory = losses.lcpo.init(num_annotators=count, eta_0=0.9)
        (weights, memory, _), _ = jax.lax.scan(step, (start, memory, optimizer.init(start)), None, length=steps)
        return weights, truth, memory.eta

    return jax.vmap(one)(keys)


def accuracy(weights, truth):
    """Share of new pairs ranked as the truth ranks them: features are Gaussian, so 1 - angle / pi."""
    cosine = jnp.sum(weights * truth, -1) / (jnp.linalg.norm(weights, axis=-1) * jnp.linalg.norm(truth, axis=-1))
    return 1 - jnp.arccos(cosine) / jnp.pi


def committed(strength):
    """The tiny LM's rows of docs/noisy_labels.md at one strength: mean and deviation of the gold win rate."""
    cells = [re.split(r" *\| *", line.strip("| \n")) for line in ABLATION.read_text(encoding="utf-8").splitlines()]
    rows = [c for c in cells if c[0] in NAMES and float(c[1]) == strength]
    return [
        {"method": c[0], "flipped": float(c[2]), "seeds": int(c[3])}
        | dict(zip(("win_rate", "deviation"), map(float, c[4].split(" ± ")), strict=True))
        for c in rows
    ]


def tables(
    *,
    seeds=10,
    pairs=500,
    many_pairs=4000,
    steps=1000,
    rates=(0.0, 0.1, 0.2, 0.3, 0.4),
    two=(0.1, 0.35),
    learning_rate=0.03,
):
    sizes = {"pairs": pairs, "steps": steps, "learning_rate": learning_rate}
    keys = jax.random.split(jax.random.key(0), seeds)
    fits, estimates = [], []
    for method in NAMES:
        of_rates = jax.vmap(lambda rate, m=method: fitted(m, rate[None], keys, **sizes))(jnp.array(rates))
        weights, truth, eta = of_rates
        ranked = np.asarray(accuracy(weights, truth))
        scale = np.asarray(jnp.sum(weights * truth, -1) / SCALE**2)
        places = [(i, rate, seed) for i, rate in enumerate(rates) for seed in range(seeds)]
        fits += [
            {"method": method, "flip_rate": rate, "seed": seed, "accuracy": float(ranked[i, seed])}
            | {"scale": float(scale[i, seed])}
            for i, rate, seed in places
        ]
        if method == "lcpo":
            one = [(rate, seed, "the only one", float(eta[i, seed, 0])) for i, rate, seed in places]
            pair = np.asarray(fitted(method, jnp.array(two), keys, **sizes)[2])
            one += [(rate, s, "one of two", float(pair[s, k])) for k, rate in enumerate(two) for s in range(seeds)]
            columns = ("flip_rate", "seed", "annotator", "estimated_accuracy")
            estimates = [dict(zip(columns, row, strict=True)) for row in one]
    of_rates = jax.vmap(lambda rate: fitted("robust_dpo", rate[None], keys[:5], **sizes | {"pairs": many_pairs}))
    weights, truth, _ = of_rates(jnp.array(rates))
    scale = np.asarray(jnp.sum(weights * truth, -1) / SCALE**2)
    many = [
        {"flip_rate": rate, "seed": seed, "scale": float(value)}
        for rate, of_rate in zip(rates, scale, strict=True)
        for seed, value in enumerate(of_rate)
    ]
    return {"fits": fits, "robust_dpo_on_many_pairs": many, "estimates": estimates, "tiny_lm": committed(1.0)}


def figure(tables):
    drawn, axes = style.panels(2, 2)
    for axis, y, label in (
        (axes[0, 0], "accuracy", "new pairs ranked right (share)"),
        (axes[0, 1], "scale", "fitted reward scale / true scale"),
    ):
        for method, marker in zip(NAMES, style.MARKERS, strict=False):
            rows = style.select(tables["fits"], method=method)
            style.band(axis, rows, "flip_rate", y, label=NAMES[method], marker=marker, markersize=5)
        axis.set(xlabel="share of flipped labels", ylabel=label)
    many = tables["robust_dpo_on_many_pairs"]
    style.band(
        axes[0, 1], many, "flip_rate", "scale", color=style.COLOURS[2], linestyle="--", label="8 times the pairs"
    )
    axes[0, 1].legend(handles=[axes[0, 1].lines[-1]])
    axes[0, 1].axhline(1, color="0.5", lw=0.8)
    axes[0, 1].set_yscale("log")
    rates = style.distinct(tables["fits"], "flip_rate")
    axes[1, 0].plot(rates, [1 - rate for rate in rates], color="0.5", lw=1, label="true")
    alone = style.select(tables["estimates"], annotator="the only one")
    style.band(axes[1, 0], alone, "flip_rate", "estimated_accuracy", marker="o", label="one annotator")
    others = style.select(tables["estimates"], annotator="one of two")
    x, y = ([row[c] for row in others] for c in ("flip_rate", "estimated_accuracy"))
    axes[1, 0].plot(x, y, "s", color=style.COLOURS[1], alpha=0.5, markersize=5, label="two annotators")
    axes[1, 0].set(xlabel="share of flipped labels", ylabel="label accuracy as LCPO has it")
    axes[1, 0].legend()
    for number, method in enumerate(NAMES):
        rows = style.select(tables["tiny_lm"], method=method)
        axes[1, 1].errorbar(
            [("right", "a quarter flipped")[row["flipped"] > 0] for row in rows],
            [row["win_rate"] for row in rows], [row["deviation"] for row in rows],
            marker=style.MARKERS[number], capsize=3,
        )  # fmt: skip
    axes[1, 1].set(ylabel="gold win rate", title="tiny LM, docs/noisy_labels.md")
    axes[1, 1].margins(x=0.2)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawn
