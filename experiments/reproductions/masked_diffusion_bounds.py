"""Likelihood bounds of a masked diffusion model: their noise, BGPO's bound on them, and what its gradient costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import policy_gradients as pg
from experiments.reproductions import style

LENGTH, VOCABULARY = 6, 5
SMALL = {"seeds": 1, "draws": 64, "responses": 4, "samples": (1, 4), "distances": (0.0, 0.5), "memory_samples": (1, 4)}


def token_logps(params, response, masked):
    """log p(y_i | what is not hidden) f[m, L] of a response i[L] under maskings bool[m, L], by a table of pairs."""
    visible = ~masked & ~jnp.eye(LENGTH, dtype=bool)[:, None]  # [i, m, j]: what place i sees
    seen = params["pairs"][:, jnp.arange(LENGTH), response]  # [i, j, V]
    logits = params["bias"][:, None] + jnp.einsum("imj,ijv->imv", visible.astype(jnp.float32), seen)
    logps = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(logps, response[:, None, None], axis=-1)[..., 0].T


def random_params(key, scale):
    of_bias, of_pairs = jax.random.split(key)
    pairs = jax.random.normal(of_pairs, (LENGTH, LENGTH, VOCABULARY, VOCABULARY))
    return {"bias": scale * jax.random.normal(of_bias, (LENGTH, VOCABULARY)), "pairs": scale * pairs}


def sampled(key, params):
    """A response i[L], one place after the other in a random order."""
    of_order, of_tokens = jax.random.split(key)
    order = jax.random.permutation(of_order, LENGTH)

    def fill(carry, place_and_key):
        response, masked = carry
        place, key = place_and_key
        candidates = jnp.tile(response, (VOCABULARY, 1)).at[:, place].set(jnp.arange(VOCABULARY))
        logps = jax.vmap(lambda y: token_logps(params, y, masked[None])[0, place])(candidates)
        token = jax.random.categorical(key, logps)
        return (response.at[place].set(token), masked.at[place].set(False)), None

    start = jnp.zeros(LENGTH, jnp.int32), jnp.ones(LENGTH, bool)
    (response, _), _ = jax.lax.scan(fill, start, (order, jax.random.split(of_tokens, LENGTH)))
    return response


def by_time(params, response, masked, times):
    return pg.mdlm_elbo_terms(token_logps(params, response, masked), masked, times)


def by_count(params, response, masked):
    return pg.mdlm_elbo_terms_by_count(token_logps(params, response, masked), masked, jnp.ones(LENGTH, bool))


def exact(params, response):
    subsets = jnp.array(np.indices((2,) * LENGTH).reshape(LENGTH, -1).T.astype(bool))
    return pg.mdlm_elbo_exact(token_logps(params, response, subsets), subsets)


def time_maskings(key, count):
    of_times, of_tokens = jax.random.split(key)
    times = jax.random.uniform(of_times, (count,), minval=1e-6)
    return pg.mdlm_masks(jax.random.uniform(of_tokens, (count, LENGTH)), times, jnp.ones(LENGTH, bool)), times


def count_maskings(key, count):
    """l uniform on 1 .. L, then l places of L."""
    of_sizes, of_tokens = jax.random.split(key)
    sizes = jax.random.randint(of_sizes, (count,), 1, LENGTH + 1)
    ranks = jnp.argsort(jnp.argsort(jax.random.uniform(of_tokens, (count, LENGTH)), axis=-1), axis=-1)
    return ranks < sizes[:, None]


def moved(old, direction, distance):
    return jax.tree.map(lambda p, d: p + distance * d, old, direction)


# ----------------------------------------------------------------------------------------------- noise of the estimates


@functools.partial(jax.jit, static_argnames=("draws", "responses", "samples"))
def noise(key, *, draws, responses, samples, scale):
    """{(estimator, n): root mean square over responses of the error of one estimate}, and the biases, in nats."""
    keys = jax.random.split(key, 4)
    old, direction = random_params(keys[0], scale), random_params(keys[1], 1.0)
    policy = moved(old, direction, 0.1)

    def of_response(key):
        of_sample, of_time, of_count, of_other = jax.random.split(key, 4)
        response = sampled(of_sample, old)
        value, before = exact(policy, response), exact(old, response)
        count = draws * samples[-1]
        masked, times = time_maskings(of_time, count)
        counted, others = count_maskings(of_count, count), count_maskings(of_other, count)
        terms = {
            "bound, t uniform": by_time(policy, response, masked, times) - value,
            "bound, number uniform": by_count(policy, response, counted) - value,
            "difference, own maskings": by_count(policy, response, counted)
            - by_count(old, response, others)
            - (value - before),
            "difference, shared maskings": by_count(policy, response, counted)
            - by_count(old, response, counted)
            - (value - before),
        }
        squares = {
            (name, n): jnp.mean(jnp.square(jnp.mean(values[: draws * n].reshape(draws, n), axis=-1)))
            for name, values in terms.items()
            for n in samples
        }
        all_hidden = token_logps(policy, response, jnp.ones((1, LENGTH), bool))
        return squares, value, jnp.sum(all_hidden)

    squares, values, one_step = jax.vmap(of_response)(jax.random.split(keys[2], responses))
    return jax.tree.map(lambda s: jnp.sqrt(jnp.mean(s)), squares), jnp.mean(values), jnp.mean(one_step)


# --------------------------------------------------------------------------------------------------- BGPO and its bound


@functools.partial(jax.jit, static_argnames=("draws", "samples"))
def bounds(key, distance, *, draws, samples, scale):
    """{sign of A: (objective with the exact bounds, expected ELBO objective, expected BGPO bound)} at a distance."""
    keys = jax.random.split(key, 4)
    old, direction = random_params(keys[0], scale), random_params(keys[1], 1.0)
    policy, response = moved(old, direction, distance), sampled(keys[2], old)
    masked = count_maskings(keys[3], draws * samples)
    ours, theirs = (by_count(p, response, masked).reshape(draws, samples) for p in (policy, old))
    ratio = jnp.exp(exact(policy, response) - exact(old, response))
    found = {}
    for advantage in (1.0, -1.0):
        a = jnp.full(draws, advantage)
        estimates = [-jnp.mean(loss(ours, theirs, a)) for loss in (pg.elbo_surrogate, pg.bgpo)]
        found[advantage] = advantage * ratio, *estimates
    return found


@functools.partial(jax.jit, static_argnames=("draws", "samples"))
def gradients(key, distance, advantage, *, draws, samples, scale):
    """{(loss, n): (bias, deviation)} of the gradient of one response, over the norm of that of A exp(B - B_old)."""
    keys = jax.random.split(key, 4)
    old, direction = random_params(keys[0], scale), random_params(keys[1], 1.0)
    policy, response = moved(old, direction, distance), sampled(keys[2], old)
    right = jax.grad(lambda p: advantage * jnp.exp(exact(p, response) - exact(old, response)))(policy)
    flat = lambda tree: jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])  # noqa: E731
    right, found = flat(right), {}

    def one(key, loss, n):
        masked = count_maskings(key, n)
        behaviour = by_count(old, response, masked)
        return flat(jax.grad(lambda p: -loss(by_count(p, response, masked), behaviour, jnp.asarray(advantage)))(policy))

    def errors(drawn):
        mean = jnp.mean(drawn, axis=0)
        variance = jnp.sum(jnp.var(drawn, axis=0, ddof=1))
        # The mean of the draws has a variance of its own, which is no bias.
        bias = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(mean - right)) - variance / draws, 0.0))
        return bias / jnp.linalg.norm(right), jnp.sqrt(variance) / jnp.linalg.norm(right)

    for name, loss in {"ELBO objective": pg.elbo_surrogate, "BGPO": pg.bgpo}.items():
        for n in samples:
            found[name, n] = errors(
                jax.vmap(lambda k, loss=loss, n=n: one(k, loss, n))(jax.random.split(keys[3], draws))
            )
    hidden = jnp.ones((1, LENGTH), bool)

    def one_step(params):
        return jnp.sum(token_logps(params, response, hidden))

    estimate = jax.grad(lambda p: advantage * jnp.exp(one_step(p) - one_step(old)))(policy)
    for n in samples:
        found["one step, all hidden", n] = (
            jnp.linalg.norm(flat(estimate) - right) / jnp.linalg.norm(right),
            jnp.zeros(()),
        )
    return found


# --------------------------------------------------------------------------------------------------------------- memory


def working_memory(samples, *, responses=256, scale=0.7):
    """Bytes that the compiled gradient needs beside its inputs and outputs, for n maskings of each response."""
    params = random_params(jax.random.key(0), scale)
    y = jnp.zeros((responses, LENGTH), jnp.int32)
    advantages = jnp.linspace(-1.0, 1.0, responses)

    def terms(params, masked):
        return jax.vmap(by_count, in_axes=(None, 0, 0))(params, y, masked)

    def at_once(params, old, masked):
        return jax.grad(lambda p: jnp.mean(pg.elbo_surrogate(terms(p, masked), terms(old, masked), advantages)))(params)

    def one_by_one(params, old, masked):
        def add(total, one):
            loss = lambda p: jnp.mean(pg.bgpo(terms(p, one), terms(old, one), advantages))  # noqa: E731
            return jax.tree.map(lambda t, g: t + g / samples, total, jax.grad(loss)(params)), None

        slices = jnp.moveaxis(masked[:, :, None], 1, 0)
        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), slices)[0]

    masked = jnp.ones((responses, samples, LENGTH), bool)
    return {
        name: jax.jit(function).lower(params, params, masked).compile().memory_analysis().temp_size_in_bytes
        for name, function in (("ELBO objective", at_once), ("BGPO", one_by_one))
    }


def tables(
    *,
    seeds=5,
    draws=400,
    responses=8,
    samples=(1, 2, 4, 8, 16, 32),
    distances=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    memory_samples=(1, 4, 16, 64),
    scale=0.7,
    distance=0.2,
):
    keys = jax.random.split(jax.random.key(0), seeds)
    spread, likelihoods, of_bounds, of_gradients = [], [], [], []
    found = jax.vmap(functools.partial(noise, draws=draws, responses=responses, samples=samples, scale=scale))(keys)
    for (name, n), values in found[0].items():
        spread += [{"estimate": name, "samples": n, "seed": s, "error_nats": float(v)} for s, v in enumerate(values)]
    for s, (bound, one_step) in enumerate(zip(*found[1:], strict=True)):
        likelihoods.append({"seed": s, "bound_nats": float(bound), "one_step_nats": float(one_step)})
    for at in distances:
        one = functools.partial(bounds, distance=at, draws=draws, samples=16, scale=scale)
        for advantage, values in jax.vmap(one)(keys).items():
            for name, of_seeds in zip(("exact", "ELBO objective", "BGPO"), values, strict=True):
                of_bounds += [
                    {"advantage": advantage, "objective": name, "distance": at, "seed": s, "value": float(v)}
                    for s, v in enumerate(of_seeds)
                ]
    for advantage in (1.0, -1.0):
        one = functools.partial(
            gradients, distance=distance, advantage=advantage, draws=draws, samples=samples, scale=scale
        )
        for (name, n), (bias, deviation) in jax.vmap(one)(keys).items():
            of_gradients += [
                {
                    "advantage": advantage,
                    "objective": name,
                    "samples": n,
                    "seed": s,
                    "bias": float(b),
                    "deviation": float(d),
                }
                for s, (b, d) in enumerate(zip(bias, deviation, strict=True))
            ]
    memory = [
        {"objective": name, "samples": n, "mebibytes": size / 2**20}
        for n in memory_samples
        for name, size in working_memory(n).items()
    ]
    return {
        "noise": spread,
        "likelihoods": likelihoods,
        "bounds": of_bounds,
        "gradients": of_gradients,
        "memory": memory,
    }


def figure(tables):
    drawn, axes = style.panels(2, 2)
    (noise_axis, bound_axis), (gradient_axis, memory_axis) = axes
    for name in style.distinct(tables["noise"], "estimate"):
        style.band(noise_axis, style.select(tables["noise"], estimate=name), "samples", "error_nats", label=name)
    noise_axis.set(xscale="log", yscale="log", xlabel="maskings, n", ylabel="root mean square error (nats)")
    noise_axis.set(title="noise of the estimates", ylim=(0.015, None))
    for i, name in enumerate(("exact", "ELBO objective", "BGPO")):
        for advantage in (1.0, -1.0):
            rows = style.select(tables["bounds"], objective=name, advantage=advantage)
            label = {"label": name} if advantage > 0 else {}
            grid, values = style.over_seeds(rows, "distance", "value")
            line = ("-", "--", ":")[i]
            bound_axis.plot(grid, values.mean(0), line, color=style.COLOURS[i], lw=3 if i == 2 else 2, **label)
    bound_axis.set(xlabel="distance from the old parameters", ylabel="objective", title="the bound, A = 1 and A = -1")
    for i, name in enumerate(("ELBO objective", "BGPO", "one step, all hidden")):
        rows = style.select(tables["gradients"], objective=name, advantage=-1.0)
        style.band(gradient_axis, rows, "samples", "bias", label=f"{name}: bias", color=style.COLOURS[i + 1])
        if name != "one step, all hidden":
            deviation = {"label": f"{name}: deviation", "color": style.COLOURS[i + 1], "ls": "--"}
            style.band(gradient_axis, rows, "samples", "deviation", **deviation)
        rows = style.select(tables["memory"], objective=name)
        if rows:
            memory_axis.plot(
                [r["samples"] for r in rows],
                [r["mebibytes"] for r in rows],
                "-o",
                color=style.COLOURS[i + 1],
                label=name,
            )
    gradient_axis.set(xscale="log", ylim=(0, None), xlabel="maskings, n", ylabel="relative to the exact gradient")
    gradient_axis.set(title="error of the gradient, A = -1")
    memory_axis.set(xscale="log", yscale="log", xlabel="maskings, n", ylabel="working memory (MiB)")
    memory_axis.set(title="memory of the gradient")
    noise_axis.legend(loc="lower left")
    for axis in (bound_axis, gradient_axis, memory_axis):
        axis.legend()
    return drawn
