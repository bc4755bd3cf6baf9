"""Weights of training sources learnt from validation data: clean, shuffled, opposite labels (arXiv 2406.19976)."""

import functools

import jax
import jax.numpy as jnp

from alignment import solvers
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 20, "alphas": (10.0,)}
SOURCES = ("clean", "shuffled labels", "opposite labels")
_TEST = 1000


def _draw(key, count, truth, noise):
    of_inputs, of_noise = jax.random.split(key)
    inputs = jax.random.normal(of_inputs, (count, truth.size))
    return inputs, inputs @ truth + noise * jax.random.normal(of_noise, (count,))


@functools.partial(jax.jit, static_argnames=("steps", "examples", "validation_examples", "batch", "dimension"))
def run(key, alpha, *, steps, examples, validation_examples, batch, dimension, noise, weight_rate):
    """Weights f[steps, S] of ScaleBiO and the test losses {training: value} of linear regressions on three sources."""
    keys = jax.random.split(key, 8)
    truth = jax.random.normal(keys[0], (dimension,))
    inputs, labels = jax.vmap(lambda k: _draw(k, examples, truth, noise))(jax.random.split(keys[1], 3))
    labels = labels.at[1].set(jax.random.permutation(keys[2], labels[1])).at[2].multiply(-1)
    validation, test = _draw(keys[3], validation_examples, truth, noise), _draw(keys[4], _TEST, truth, noise)

    def loss(params, data):
        return jnp.mean(jnp.square(data[0] @ params - data[1]))

    def source_losses(params, places):
        return jax.vmap(lambda x, y, at: loss(params, (x[at], y[at])))(inputs, labels, places)

    places = jax.random.randint(keys[5], (steps, 3, batch), 0, examples)
    start = jnp.zeros(3), jnp.zeros(dimension)
    # A step of w is model_rate * alpha on the mixture: the same size for every alpha.
    rates = {"weight_rate": weight_rate, "model_rate": 0.2 / alpha, "shadow_rate": 0.2 / alpha}
    found = solvers.scalebio(
        source_losses, lambda params, _: loss(params, validation), *start, places, alpha=alpha, **rates
    )

    def fitted(weights):
        """The minimiser of the mixture's loss on all examples."""
        curvature = jnp.einsum("s,sni,snj->ij", weights, inputs, inputs) / examples
        return jnp.linalg.solve(curvature, jnp.einsum("s,sni,sn->i", weights, inputs, labels) / examples)

    of_validation = jnp.linalg.lstsq(*validation)[0]
    losses = {
        "equal weights": loss(fitted(jnp.full(3, 1 / 3)), test),
        "validation data alone": loss(of_validation, test),
        "ScaleBiO, its model": loss(found.params, test),
        "ScaleBiO, its weights": loss(fitted(found.weights[-1]), test),
        "clean source alone": loss(fitted(jnp.array([1.0, 0.0, 0.0])), test),
    }
    return found.weights, losses


def tables(
    *,
    seeds=10,
    steps=300,
    examples=200,
    validation_examples=20,
    batch=32,
    dimension=10,
    noise=0.3,
    alphas=(1.0, 10.0, 100.0),
    weight_rate=0.1,
):
    settings = dict(
        zip(("steps", "examples", "validation_examples"), (steps, examples, validation_examples), strict=True)
    )
    settings |= {"batch": batch, "dimension": dimension, "noise": noise}
    trajectories, test = [], []
    for alpha in alphas:
        # The gradient of the weights has the factor alpha times a difference of losses that falls as 1 / alpha.
        one = functools.partial(run, alpha=alpha, weight_rate=weight_rate, **settings)
        weights, losses = jax.vmap(one)(jax.random.split(jax.random.key(0), seeds))
        for seed in range(seeds):
            trajectories += [
                {"alpha": alpha, "seed": seed, "step": step + 1, "source": source, "weight": float(w)}
                for step in range(0, steps, max(1, steps // 60))
                for source, w in zip(SOURCES, weights[seed, step], strict=True)
            ]
            test += [
                {"alpha": alpha, "seed": seed, "training": training, "test_loss": float(values[seed])}
                for training, values in losses.items()
            ]
    return {"weights": trajectories, "test_losses": test}


def figure(tables):
    drawn, (paths, bars) = style.panels(2)
    shown = 10.0
    for source in SOURCES:
        rows = style.select(tables["weights"], alpha=shown, source=source)
        style.band(paths, rows, "step", "weight", label=source)
    paths.set(xlabel="step", ylabel="weight of the source", title=f"ScaleBiO, alpha = {shown:g}", ylim=(-0.02, 1.02))
    paths.legend()
    for i, training in enumerate(style.distinct(tables["test_losses"], "training")):
        rows = style.select(tables["test_losses"], alpha=shown, training=training)
        values = [row["test_loss"] for row in rows]
        bars.plot(values, [i] * len(values), style.MARKERS[i], color=style.COLOURS[i], alpha=0.5)
    trainings = style.distinct(tables["test_losses"], "training")
    bars.set(yticks=range(len(trainings)), yticklabels=trainings, xscale="log", title="a point for each seed")
    bars.set(xlabel="test loss (squared error)")
    return drawn
