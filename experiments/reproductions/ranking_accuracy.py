"""Why DPO's loss falls and rankings stay wrong: the loss at which a pair flips is set by the reference (2405.19534)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alignment import losses, metrics
from experiments.reproductions import style

SMALL = None
FEATURES, PAIRS = 64, 1024
BETAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
BETA = 0.1  # of the first two panels


def population(key, truth):
    """Pairs (features of the preferred side less those of the other, reference's log-ratio, share of raters): f[N, D],
    f[N], f[N].

    What most raters prefer comes first. Raters follow a reward of which three quarters of the variance are linear in
    the features; the reference knows a little of it, and differs by 20 nats for other reasons, as long responses do.
    """
    of_features, of_rest, of_reference = jax.random.split(key, 3)
    features = jax.random.normal(of_features, (PAIRS, FEATURES))
    gaps = 1.5 * (0.75**0.5 * features @ truth + 0.5 * jax.random.normal(of_rest, (PAIRS,)))
    sign = jnp.sign(gaps)
    ratios = jnp.abs(gaps) + 20.0 * jax.random.normal(of_reference, (PAIRS,))
    return sign[:, None] * features, ratios, jax.nn.sigmoid(jnp.abs(gaps))


def train(beta, features, ratios, *, steps, learning_rate):
    """Log-ratios of the pairs under a policy linear in the features beyond the reference, after every step [steps, N],
    and its last weights. Only differences of log-probs matter: the rejected side has 0."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    zeros = jnp.zeros_like(ratios)

    def policy(weights):
        return ratios + features @ weights / beta

    def step(carry, _):
        weights, state = carry
        gradient = jax.grad(lambda w: jnp.mean(losses.dpo(policy(w), zeros, ratios, zeros, beta=beta)))(weights)
        updates, state = optimizer.update(gradient, state)
        weights = optax.apply_updates(weights, updates)
        return (weights, state), policy(weights)

    start = jnp.zeros(FEATURES)
    (weights, _), policies = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)
    return policies, weights


def one(key, *, steps, learning_rate):
    """What one seed measures."""
    of_truth, of_pairs, of_held_out, of_labels = jax.random.split(key, 4)
    truth = jax.random.normal(of_truth, (FEATURES,)) / FEATURES**0.5
    features, ratios, shares = population(of_pairs, truth)
    # One rater labels each pair.
    label = jnp.where(jax.random.uniform(of_labels, (PAIRS,)) < shares, 1.0, -1.0)
    features, ratios = label[:, None] * features, label * ratios
    zeros = jnp.zeros(PAIRS)

    policies, _ = train(BETA, features, ratios, steps=steps, learning_rate=learning_rate)
    wrong = ratios < 0  # by the reference

    def during(policy):
        ranked = metrics.ranking_accuracy(policy, zeros)
        return {
            "loss_nats": jnp.mean(losses.dpo(policy, zeros, ratios, zeros, beta=BETA)),
            "rewards ranked right": jnp.mean(metrics.reward_accuracy(policy, zeros, ratios, zeros)),
            "pairs ranked right": jnp.mean(ranked),
            "of those that the reference has wrong": jnp.sum(ranked * wrong) / jnp.sum(wrong),
        }

    last = policies[-1]
    pairs = {
        "reference_log_ratio_nats": -ratios,
        "loss_nats": losses.dpo(last, zeros, ratios, zeros, beta=BETA),
        "flip_loss_nats": metrics.dpo_flip_loss(ratios, zeros, beta=BETA),
        "ranked_right": metrics.ranking_accuracy(last, zeros),
        "flipped_by_the_theorem": metrics.dpo_flipped(last, zeros, ratios, zeros, beta=BETA),
    }

    held_out, references, proportions = population(of_held_out, truth)

    def at(beta):
        _, weights = train(beta, features, ratios, steps=steps, learning_rate=learning_rate)
        ideal = metrics.idealized_ranking_accuracy(references, zeros, proportions, beta=beta)
        return {
            "exact optimum": jnp.mean(ideal),
            "trained": jnp.mean(metrics.ranking_accuracy(references + held_out @ weights / beta, zeros)),
            "reference": jnp.mean(metrics.ranking_accuracy(references, zeros)),
        }

    return jax.vmap(during)(policies), pairs, jax.vmap(at)(jnp.array(BETAS))


def tables(*, seeds=5, steps=300, learning_rate=0.005, every=10):
    keys = jax.random.split(jax.random.key(0), seeds)
    found = jax.jit(jax.vmap(lambda key: one(key, steps=steps, learning_rate=learning_rate)))(keys)
    during, pairs, by_beta = jax.tree.map(np.asarray, found)
    training = [
        {"seed": s, "step": t + 1, "measure": name, "value": float(values[s, t])}
        for name, values in during.items()
        for s in range(seeds)
        for t in range(every - 1, steps, every)
    ]
    of_pairs = [
        {"seed": s, **{name: float(values[s, i]) for name, values in pairs.items()}}
        for s in range(seeds)
        for i in range(PAIRS)
    ]
    accuracies = [
        {"seed": s, "beta": beta, "policy": name, "ranking_accuracy": float(values[s, b])}
        for name, values in by_beta.items()
        for s in range(seeds)
        for b, beta in enumerate(BETAS)
    ]
    return {"pairs": of_pairs, "training": training, "accuracies": accuracies}


def share_against_theorem(tables) -> float:
    """Share of all pairs, of all seeds, whose ranking is not as the loss and the curve have it."""
    return sum(row["ranked_right"] != row["flipped_by_the_theorem"] for row in tables["pairs"]) / len(tables["pairs"])


def mean_during(tables, measure: str, step: int) -> float:
    """Over the seeds."""
    rows = style.select(tables["training"], measure=measure, step=step)
    return sum(row["value"] for row in rows) / len(rows)


def mean_accuracy(tables, policy: str, beta: float) -> float:
    """On held-out pairs, over the seeds."""
    rows = style.select(tables["accuracies"], policy=policy, beta=beta)
    return sum(row["ranking_accuracy"] for row in rows) / len(rows)


def figure(tables):
    drawn, axes = style.panels(3)
    pairs = style.select(tables["pairs"], seed=0)
    for right, colour, label in ((1.0, style.COLOURS[0], "ranked right"), (0.0, style.COLOURS[1], "ranked wrong")):
        rows = style.select(pairs, ranked_right=right)
        points = [r["reference_log_ratio_nats"] for r in rows], [r["loss_nats"] for r in rows]
        axes[0].scatter(*points, s=8, alpha=0.6, color=colour, label=label)
    curve = sorted((r["reference_log_ratio_nats"], r["flip_loss_nats"]) for r in pairs)
    axes[0].plot(*zip(*curve, strict=True), color="black", lw=1, label="loss that flips a pair")
    axes[0].set(xlabel="log ref(rejected) - log ref(chosen), nats", ylabel="DPO loss after training, nats")
    for measure in style.distinct(tables["training"], "measure"):
        label = "mean DPO loss, nats" if measure == "loss_nats" else measure
        rows = style.select(tables["training"], measure=measure)
        style.band(axes[1], rows, "step", "value", label=label, ls="--" if measure == "loss_nats" else "-")
    axes[1].set(xlabel="step", ylabel="share of training pairs; nats", ylim=(0, 1.25))
    for policy in style.distinct(tables["accuracies"], "policy"):
        rows = style.select(tables["accuracies"], policy=policy)
        style.band(axes[2], rows, "beta", "ranking_accuracy", label=policy, marker="o")
    axes[2].set(xscale="log", xlabel="beta", ylabel="held-out pairs ranked right")
    axes[0].legend(fontsize=9, loc="upper right")
    axes[1].legend(fontsize=9, loc="upper right")
    axes[2].legend()
    return drawn
