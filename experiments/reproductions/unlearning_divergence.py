"""How fast unlearning leaves the model it starts from: gradient ascent and NPO (arXiv 2404.05868)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import losses
from experiments.reproductions import style

METHODS = {"gradient ascent": None, "NPO, beta 0.1": 0.1, "NPO, beta 1": 1.0, "NPO, beta 4": 4.0}
SMALL = {"seeds": 2, "steps": 300, "pretraining": 200}


def _logps(params, data):
    inputs, labels = data
    scores = jax.nn.log_softmax(inputs @ params)
    return jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]


@functools.partial(jax.jit, static_argnames=("ascent", "pretraining", "classes", "dimension", "examples"))
def run(key, beta, marks, *, ascent, pretraining, classes, dimension, examples, rate):
    """At the steps `marks` of unlearning: distance moved, and what is left of the data to forget and to retain."""
    keys = jax.random.split(key, 4)
    truth = jax.random.normal(keys[0], (dimension, classes))
    inputs = jax.random.normal(keys[1], (2 * examples, dimension))
    labels = jnp.argmax(inputs @ truth + jax.random.gumbel(keys[2], (2 * examples, classes)), axis=-1)
    forget, retain = (inputs[:examples], labels[:examples]), (inputs[examples:], labels[examples:])
    every = jnp.ones(examples, bool)

    def learn(params, _):
        gradient = jax.grad(lambda p: -jnp.mean(_logps(p, (inputs, labels))))(params)
        return params - 0.5 * gradient, None

    start, _ = jax.lax.scan(learn, jnp.zeros((dimension, classes)), None, pretraining)
    reference = _logps(start, forget)

    def objective(params):
        logps = _logps(params, forget)
        if ascent:  # an example is a completion of one token
            return jnp.mean(losses.grad_ascent(logps[:, None], every[:, None]))
        return jnp.mean(losses.npo(logps, reference, beta=beta))

    def forgets(_, params):
        return params - rate * jax.grad(objective)(params)

    def measured(params):
        of_retain = jax.nn.log_softmax(retain[0] @ start), jax.nn.log_softmax(retain[0] @ params)
        return {
            "distance": jnp.linalg.norm(params - start),
            "forget_logp": jnp.mean(_logps(params, forget)),
            "retain_logp": jnp.mean(_logps(params, retain)),
            "retain_kl": jnp.mean(jnp.sum(jnp.exp(of_retain[0]) * (of_retain[0] - of_retain[1]), axis=-1)),
        }

    def up_to_mark(params, steps):
        params = jax.lax.fori_loop(0, steps, forgets, params)
        return params, measured(params)

    return jax.lax.scan(up_to_mark, start, jnp.diff(marks, prepend=0))[1]


def tables(*, seeds=5, steps=20_000, pretraining=1000, classes=5, dimension=40, examples=60, rate=0.05):
    marks = tuple(sorted({round(x) for x in np.geomspace(10, steps, 20)}))
    settings = {"pretraining": pretraining, "classes": classes, "dimension": dimension, "examples": examples}
    keys, rows = jax.random.split(jax.random.key(0), seeds), []
    for method, beta in METHODS.items():
        one = functools.partial(run, ascent=beta is None, rate=rate, **settings)
        found = jax.vmap(one, in_axes=(0, None, None))(keys, jnp.float32(beta or 1.0), jnp.array(marks))
        rows += [
            {"method": method, "seed": s, "step": mark} | {name: float(v[s, i]) for name, v in found.items()}
            for i, mark in enumerate(marks)
            for s in range(seeds)
        ]
    return {"unlearning": rows}


def figure(tables):
    drawn, (distance, retain, trade) = style.panels(3)
    for i, method in enumerate(METHODS):
        rows = style.select(tables["unlearning"], method=method)
        look = {"label": method, "color": style.COLOURS[i], "marker": style.MARKERS[i], "ms": 5}
        style.band(distance, rows, "step", "distance", **look)
        style.band(retain, rows, "step", "retain_kl", **look)
        means = [style.over_seeds(rows, "step", column)[1].mean(0) for column in ("forget_logp", "retain_logp")]
        trade.plot(*means, **look)
    distance.set(xscale="log", yscale="log", xlabel="step", ylabel="|theta - theta before|", title="distance")
    retain.set(xscale="log", yscale="log", xlabel="step", ylabel="KL(before || now), nats", title="damage elsewhere")
    trade.set(xlabel="log-prob of what to forget (nats)", ylabel="log-prob of what to retain (nats)")
    trade.set(title="along the way, mean of seeds", xlim=(-12, 0.1), ylim=(-3, 0.1))
    for axis in (distance, retain, trade):
        axis.legend()
    return drawn
