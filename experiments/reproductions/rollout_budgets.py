"""Where rollouts go: a knapsack over prompts (arXiv 2509.25849), and one rollout with a memory (2509.13232)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alignment import policy_gradients as pg
from alignment.policy_gradients import selection
from alignment.policy_gradients.success_trackers import spo, spo_prior
from experiments.reproductions import style

SMALL = None
MEAN_RATES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)


def allocations(rates, seen, *, per_prompt, highest):
    """{rule: rollouts of each prompt} for a budget of `per_prompt` times the prompts."""
    total = per_prompt * rates.size
    return {
        "uniform": np.full(rates.shape, per_prompt),
        "knapsack": selection.knapsack_allocation(rates, total=total, highest=highest),
        "knapsack, rates from 8 rollouts": selection.knapsack_allocation(seen, total=total, highest=highest),
    }


def budgets(*, seeds, prompts, per_prompt, concentration, highest):
    rows = []
    for mean in MEAN_RATES:
        for seed in range(seeds):
            rng = np.random.default_rng([seed, int(1000 * mean)])
            rates = rng.beta(concentration * mean, concentration * (1 - mean), prompts)
            seen = rng.binomial(8, rates) / 8
            of_rules = allocations(rates, seen, per_prompt=per_prompt, highest=highest)
            for rule, counts in of_rules.items():
                # Of the true rates, whatever the rule knew.
                mixed = np.asarray(pg.mixed_group_probability(jnp.asarray(rates), jnp.asarray(counts)))
                rows.append(
                    {
                        "rule": rule,
                        "seed": seed,
                        "mean_success_rate": mean,
                        "share_of_rollouts_in_mixed_groups": float((counts * mixed).sum() / counts.sum()),
                        "share_of_prompts_with_a_mixed_group": float(mixed.mean()),
                        "largest_group": int(counts.max()),
                    }
                )
    return rows


@functools.partial(jax.jit, static_argnames=("prompts", "steps", "group_size"))
def tracking(key, drift, *, prompts, steps, group_size):
    """Root mean squared error of three baselines of a prompt's success rate, and how often a sample teaches nothing.

    The logit of a prompt's rate takes a Gaussian step of size `drift` and is drawn back just so much that the spread of
    the prompts stays as it was. One rollout of every prompt a step for the tracker and the average; a group of G for
    one prompt in G, which is as many rollouts. A group knows no drift, as it is drawn at once.
    """
    keys = jax.random.split(key, 2)
    center, spread = -1.0, 1.5
    logits = center + spread * jax.random.normal(keys[0], (prompts,))
    ids, valid = jnp.arange(prompts), jnp.ones(prompts, bool)
    no_samples = jnp.zeros(prompts), jnp.zeros(prompts, jnp.int32)

    def step(carry, key):
        logits, tracker, average, moved = carry
        rate_key, noise_key, group_key = jax.random.split(key, 3)
        rates = jax.nn.sigmoid(logits)
        rewards = jax.random.bernoulli(rate_key, rates).astype(jnp.float32)
        group = jax.random.binomial(group_key, group_size, rates)
        remembered = tracker.successes / (tracker.successes + tracker.failures)
        advantages, aux = spo.loss(rewards, moved, ids, valid, tracker, num_prompts=prompts)
        seen = {
            "SPO": (jnp.square(remembered - rates), jnp.mean(jnp.abs(advantages) < 1e-3)),
            "average, 0.9": (jnp.square(average - rates), jnp.mean(jnp.abs(rewards - average) < 1e-3)),
            "group of 8": (
                jnp.square(group / group_size - rates),
                jnp.mean((group == 0) | (group == group_size)),
            ),
        }
        pulled = jnp.sqrt(1 - (drift / spread) ** 2) * (logits - center) + center
        change = pulled + drift * jax.random.normal(noise_key, (prompts,)) - logits
        later = spo.update(tracker, aux, num_prompts=prompts)
        # What the tracker is told of the policy's move: by how much the rate has moved, to first order.
        carry = logits + change, later, 0.9 * average + 0.1 * rewards, jnp.abs(change) * rates * (1 - rates)
        return carry, {name: (jnp.mean(error), waste) for name, (error, waste) in seen.items()}

    start = logits, spo_prior(*no_samples), jnp.full(prompts, 0.5), jnp.zeros(prompts)
    _, history = jax.lax.scan(step, start, jax.random.split(keys[1], steps))
    late = lambda values: jnp.mean(values[steps // 2 :])  # noqa: E731 - both memories begin at a rate of 1/2
    return {name: (jnp.sqrt(late(error)), late(waste)) for name, (error, waste) in history.items()}


def baselines(*, seeds, drifts, prompts, steps):
    rows = []
    for drift in drifts:
        keys = jax.random.split(jax.random.key(0), seeds)
        found = jax.vmap(functools.partial(tracking, drift=drift, prompts=prompts, steps=steps, group_size=8))(keys)
        for name, (errors, wastes) in found.items():
            rows += [
                {"baseline": name, "seed": s, "drift_nats_per_step": drift, "error": float(e), "no_advantage": float(w)}
                for s, (e, w) in enumerate(zip(errors, wastes, strict=True))
            ]
    return rows


def tables(
    *,
    seeds=10,
    prompts=256,
    per_prompt=8,
    concentration=1.0,
    highest=128,
    drifts=(0.01, 0.03, 0.1, 0.3, 1.0),
    steps=60,
):
    return {
        "budgets": budgets(
            seeds=seeds, prompts=prompts, per_prompt=per_prompt, concentration=concentration, highest=highest
        ),
        "baselines": baselines(seeds=seeds, drifts=drifts, prompts=prompts, steps=steps),
    }


def figure(tables):
    drawn, axes = style.panels(2, 2)
    (rollouts, prompts), (error, waste) = axes
    for i, rule in enumerate(style.distinct(tables["budgets"], "rule")):
        rows, look = (
            style.select(tables["budgets"], rule=rule),
            {"label": rule, "color": style.COLOURS[i], "marker": style.MARKERS[i]},
        )
        style.band(rollouts, rows, "mean_success_rate", "share_of_rollouts_in_mixed_groups", **look)
        style.band(prompts, rows, "mean_success_rate", "share_of_prompts_with_a_mixed_group", **look)
    for i, name in enumerate(style.distinct(tables["baselines"], "baseline")):
        rows, look = (
            style.select(tables["baselines"], baseline=name),
            {"label": name, "color": style.COLOURS[i + 3], "marker": style.MARKERS[i + 3]},
        )
        style.band(error, rows, "drift_nats_per_step", "error", **look)
        style.band(waste, rows, "drift_nats_per_step", "no_advantage", **look)
    rollouts.set(title="rollouts in mixed groups", ylabel="share of the rollouts", ylim=(0, 1))
    prompts.set(title="prompts with a mixed group", ylabel="share of the prompts", ylim=(0, 1))
    for axis in (rollouts, prompts):
        axis.set(xlabel="mean success rate of the prompts")
    error.set(title="error of the baseline", ylabel="RMS error of the success rate", ylim=(0, None))
    waste.set(title="rollouts without an advantage", ylabel="share of the rollouts", ylim=(-0.02, None))
    for axis in (error, waste):
        axis.set(xscale="log", xlabel="drift of a rate's logit (nats per step)")
    for axis in axes.flat:
        axis.legend()
    return drawn
