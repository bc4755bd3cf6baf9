"""Two objectives: which points of a front a scalarisation finds, hypervolume-guided rewards, and PAMA, on bandits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import multi_objective as mo
from alignment import policy_gradients as pg
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 50}


# ------------------------------------------------------------------------------------------------------- concave front


def chosen_points(points, *, num_weights):
    """{scalarisation: index of the best point for each weight}; nothing is trained."""
    valid, found = jnp.ones(len(points), bool), {}
    smooth = functools.partial(mo.smooth_tchebycheff_scalarization, mu=0.01)
    for name, scalarize in (
        ("linear", mo.linear_scalarization),
        ("Tchebycheff", mo.tchebycheff_scalarization),
        ("smooth Tchebycheff, mu 0.01", smooth),
    ):
        weights = [(i / (num_weights + 1), 1 - i / (num_weights + 1)) for i in range(1, num_weights + 1)]
        found[name] = [(w[0], int(jnp.argmax(scalarize(points, valid, weights=w)))) for w in weights]
    return found


# -------------------------------------------------------------------------------------------------------------- bandits


def arms(key, count, scales, correlation):
    """Rewards f[A, 2] of the arms, normally distributed, one objective against the other."""
    factor = jnp.linalg.cholesky(jnp.array([[1.0, correlation], [correlation, 1.0]]))
    return jax.random.normal(key, (count, 2)) @ factor.T * jnp.array(scales)


def fixed_advantages(rewards, ids, valid, state):
    values, aux = mo.hv_guided_rewards.loss(rewards, valid, state._replace(meta=jnp.ones(())))
    return pg.rloo_advantages(values, ids, valid), aux


def halved_advantages(rewards, ids, valid, state):
    advantages, aux = fixed_advantages(rewards, ids, valid, state)
    return 0.5 * advantages, aux


def guided_advantages(rewards, ids, valid, state):
    values, aux = mo.hv_guided_rewards.loss(rewards, valid, state)
    return pg.rloo_advantages(values, ids, valid), aux


def grpo_fixed_advantages(rewards, ids, valid, state):
    values, aux = mo.hv_guided_rewards.loss(rewards, valid, state._replace(meta=jnp.ones(())))
    return pg.grpo_advantages(values, ids, valid), aux


def grpo_guided_advantages(rewards, ids, valid, state):
    values, aux = mo.hv_guided_rewards.loss(rewards, valid, state)
    return pg.grpo_advantages(values, ids, valid), aux


GUIDED = {
    "fixed weights": fixed_advantages,
    "hypervolume-guided": guided_advantages,
    "fixed weights, half the rate": halved_advantages,
    "GRPO, fixed weights": grpo_fixed_advantages,
    "GRPO, hypervolume-guided": grpo_guided_advantages,
}


def _gradient(logits, actions, advantages):
    """Of the policy-gradient loss; a completion is one token, the arm."""

    def loss(logits):
        logps = jax.nn.log_softmax(logits)[actions][:, None]
        return jnp.mean(pg.reinforce(logps, advantages[:, None], jnp.ones(logps.shape, bool)))

    return jax.grad(loss)(logits)


@functools.partial(jax.jit, static_argnames=("steps", "batch", "count"))
def guided(key, *, steps, batch, count, rate):
    """{method: (hypervolume so far, meta reward, expected scalar reward) f[steps] each} on one task."""
    of_arms, of_steps = jax.random.split(key)
    rewards = arms(of_arms, count, (1.0, 1.0), -0.5)
    start = jnp.mean(rewards, axis=0)
    ids, valid = jnp.zeros(batch, jnp.int32), jnp.ones(batch, bool)
    found = {}
    for name, advantages_of in GUIDED.items():

        def step(carry, key, advantages_of=advantages_of):
            logits, state = carry
            actions = jax.random.categorical(key, logits, shape=(batch,))
            advantages, aux = advantages_of(rewards[actions], ids, valid, state)
            state = mo.hv_guided_rewards.update(state, aux)
            logits = logits - rate * _gradient(logits, actions, advantages)
            return (logits, state), (jax.nn.softmax(logits) @ rewards, state.meta)

        state = mo.hv_guided_rewards.init()._replace(reference=start)
        _, (points, meta) = jax.lax.scan(step, (jnp.zeros(count), state), jax.random.split(of_steps, steps))
        later = points[9::10]
        so_far = jnp.tril(jnp.ones((len(later), len(later)), bool))
        volumes = jax.vmap(lambda there, later=later: mo.hypervolume(later, there, start))(so_far)
        found[name] = volumes, meta[9::10], jnp.mean(later, axis=-1) - jnp.mean(start)
    return found


def weighted_sum(logits, actions, rewards, ids, valid):
    return _gradient(logits, actions, pg.grpo_advantages(mo.linear_scalarization(rewards, valid), ids, valid))


def weighted_standardised(logits, actions, rewards, ids, valid):
    return _gradient(logits, actions, jnp.mean(pg.objective_advantages(rewards, ids, valid), axis=-1))


def shortest_combination(logits, actions, rewards, ids, valid):
    advantages = pg.objective_advantages(rewards, ids, valid)
    of_objectives = jnp.stack([_gradient(logits, actions, advantages[:, k]) for k in (0, 1)])
    return mo.mgda_weights(of_objectives @ of_objectives.T) @ of_objectives


def smallest_advantage(logits, actions, rewards, ids, valid):
    advantages = pg.objective_advantages(rewards, ids, valid)
    return _gradient(logits, actions, mo.pama_advantages(advantages, valid))


COMBINED = {
    "weighted sum": weighted_sum,
    "weighted sum, standardised": weighted_standardised,
    "MGDA": shortest_combination,
    "PAMA": smallest_advantage,
}


@functools.partial(jax.jit, static_argnames=("steps", "batch", "count"))
def combined(key, *, steps, batch, count, rate, scales):
    """{method: expected rewards less those at the start, in units of each objective's deviation, f[steps, 2]}."""
    of_arms, of_steps = jax.random.split(key)
    rewards = arms(of_arms, count, scales, -0.5)
    ids, valid = jnp.zeros(batch, jnp.int32), jnp.ones(batch, bool)
    found = {}
    for name, gradient in COMBINED.items():

        def step(logits, key, gradient=gradient):
            actions = jax.random.categorical(key, logits, shape=(batch,))
            logits = logits - rate * gradient(logits, actions, rewards[actions], ids, valid)
            return logits, jax.nn.softmax(logits) @ rewards

        _, points = jax.lax.scan(step, jnp.zeros(count), jax.random.split(of_steps, steps))
        found[name] = ((points - jnp.mean(rewards, axis=0)) / jnp.std(rewards, axis=0))[9::10]
    return found


def tables(*, seeds=10, points=101, num_weights=19, steps=300, batch=64, count=32, rate=0.5, scales=(3.0, 1.0)):
    ends = jnp.linspace(0.0, 1.0, points)
    front = jnp.stack([ends**2, (1 - ends) ** 2], axis=-1)
    chosen = [
        {"scalarisation": name, "weight": w, "point": i, "reward_1": float(front[i, 0]), "reward_2": float(front[i, 1])}
        for name, of_weights in chosen_points(front, num_weights=num_weights).items()
        for w, i in of_weights
    ]
    settings = {"steps": steps, "batch": batch, "count": count, "rate": rate}
    keys = jax.random.split(jax.random.key(0), seeds)
    marks = range(10, steps + 1, 10)
    volumes, rewards = [], []
    for method, columns in jax.vmap(functools.partial(guided, **settings))(keys).items():
        for seed in range(seeds):
            of_seed = zip(marks, *(np.asarray(column[seed]) for column in columns), strict=True)
            volumes += [
                {"method": method, "seed": seed, "step": t, "hypervolume": float(v), "meta": float(m), "gain": float(g)}
                for t, v, m, g in of_seed
            ]
    for method, values in jax.vmap(functools.partial(combined, scales=scales, **settings))(keys).items():
        for seed, of_seed in enumerate(np.asarray(values)):
            for t, (one, other) in zip(marks, of_seed, strict=True):
                lowest = float(min(one, other))
                row = {"method": method, "seed": seed, "step": t, "gain_1": float(one), "gain_2": float(other)}
                rewards.append(row | {"smaller_gain": lowest})
    return {"front": chosen, "hypervolume": volumes, "rewards": rewards}


def figure(tables):
    drawn, axes = style.panels(2, 2)
    (front, volume), (first, second) = axes
    ends = np.linspace(0, 1, 101)
    front.plot(ends**2, (1 - ends) ** 2, color="0.6", lw=1.5, label="the front")
    for i, name in enumerate(style.distinct(tables["front"], "scalarisation")):
        rows = style.select(tables["front"], scalarisation=name)
        look = {"ms": (11, 8, 5)[i], "color": style.COLOURS[i], "label": name}
        front.plot([r["reward_1"] for r in rows], [r["reward_2"] for r in rows], style.MARKERS[i], **look)
    front.set(xlabel="reward 1", ylabel="reward 2", title="best points for 19 weights")
    for i, method in enumerate(("fixed weights", "hypervolume-guided", "fixed weights, half the rate")):
        rows = style.select(tables["hypervolume"], method=method)
        style.band(volume, rows, "step", "hypervolume", label=method, ls=("-", "-", "--")[i])
    volume.set(xlabel="step", ylabel="hypervolume so far", title="hypervolume-guided reward")
    for method in COMBINED:
        rows = style.select(tables["rewards"], method=method)
        style.band(first, rows, "step", "gain_1", label=method)
        style.band(second, rows, "step", "gain_2", label=method)
    first.set(title="reward 1 (the larger scale)", ylabel="gain, in deviations of the arms")
    second.set(title="reward 2", ylabel="gain, in deviations of the arms")
    for axis in (first, second):
        axis.axhline(0, color="0.5", lw=0.8)
        axis.set(xlabel="step")
    for axis in axes.flat:
        axis.legend()
    return drawn
