"""How near best-of-n, guidance and training come to the most reward that a KL can buy (arXiv 2305.18290, 2508.21016).

Responses are all strings of a small alphabet, so that every policy's KL and reward are sums and not estimates.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alignment import analysis, games, losses, policy_gradients
from alignment.decoding import combinations, selection
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 20}
LETTERS, LENGTH = 5, 4
STRINGS = np.array(list(itertools.product(range(LETTERS), repeat=LENGTH)))
# The row of the policy's table that each letter of each string is drawn from: one for every beginning of a string.
ROWS = np.stack(
    [
        (LETTERS**t - 1) // (LETTERS - 1) + STRINGS[:, :t] @ LETTERS ** np.arange(t)[::-1]
        for t in range(LENGTH)
    ],
    axis=1,
)  # fmt: skip
BEGINNINGS = int(ROWS.max()) + 1
TUNED_BETA = 1.0  # of the policy that guidance starts from


def string_logps(table):
    """log-probs of all strings under a table of logits [BEGINNINGS, LETTERS]."""
    return jnp.sum(jax.nn.log_softmax(table)[ROWS, STRINGS], axis=-1)


def as_table(logps):
    """The table whose strings have these log-probs: the mass of all strings that go on with each letter."""
    places = jnp.asarray(ROWS * LETTERS + STRINGS).reshape(-1)
    mass = jnp.broadcast_to(jnp.exp(logps)[:, None], ROWS.shape).reshape(-1)
    return jnp.log(jnp.zeros(BEGINNINGS * LETTERS).at[places].add(mass)).reshape(BEGINNINGS, LETTERS)


def problem(key):
    """A reference's table, and a reward of letters and of neighbours, of mean 0 and deviation 1 under the reference."""
    of_table, of_letters, of_neighbours = jax.random.split(key, 3)
    table = jax.random.normal(of_table, (BEGINNINGS, LETTERS))
    letters = jax.random.normal(of_letters, (LENGTH, LETTERS))
    neighbours = jax.random.normal(of_neighbours, (LETTERS, LETTERS))
    raw = letters[np.arange(LENGTH), STRINGS].sum(-1) + neighbours[STRINGS[:, :-1], STRINGS[:, 1:]].sum(-1)
    p = jnp.exp(string_logps(table))
    return table, (raw - p @ raw) / jnp.sqrt(p @ jnp.square(raw - p @ raw))


# Each objective: (log pi of all strings, log ref, rewards, strings of the policy [2 N], of the reference, a uniform
# number for each pair, beta) -> loss.


def policy_gradient(logps, reference, rewards, own, others, coins, beta):
    values = rewards[own] - beta * jax.lax.stop_gradient(logps - reference)[own]
    everywhere = jnp.ones(own.shape, bool)
    advantages = policy_gradients.rloo_advantages(values, jnp.zeros(own.shape, int), everywhere)
    return jnp.mean(policy_gradients.reinforce(logps[own][:, None], advantages[:, None], everywhere[:, None]))


def online_dpo(logps, reference, rewards, own, others, coins, beta):
    first, second = jnp.split(own, 2)
    won = coins < jax.nn.sigmoid(rewards[first] - rewards[second])
    chosen, rejected = jnp.where(won, first, second), jnp.where(won, second, first)
    return jnp.mean(losses.dpo(logps[chosen], logps[rejected], reference[chosen], reference[rejected], beta=beta))


def offline_dpo(logps, reference, rewards, own, others, coins, beta):
    return online_dpo(logps, reference, rewards, others, others, coins, beta)


TRAINED = {"policy gradient": policy_gradient, "online DPO": online_dpo, "DPO": offline_dpo}


def train(key, objective, table, rewards, beta, *, steps, samples, learning_rate):
    """log-probs of all strings under the last policy, which starts at the reference."""
    reference = string_logps(table)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def drawn(key, logps):
        return jax.random.choice(key, len(STRINGS), (samples,), p=jnp.exp(logps))

    def step(carry, key):
        table, state = carry
        of_own, of_others, of_coins = jax.random.split(key, 3)
        own, others = drawn(of_own, string_logps(table)), drawn(of_others, reference)
        coins = jax.random.uniform(of_coins, (samples // 2,))
        gradient = jax.grad(lambda table: objective(string_logps(table), reference, rewards, own, others, coins, beta))(
            table
        )
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(table, updates), state), None

    (table, _), _ = jax.lax.scan(step, (table, optimizer.init(table)), jax.random.split(key, steps))
    return string_logps(table)


def tables(*, seeds=5, steps=1000, samples=128, learning_rate=0.03, betas=(4.0, 2.0, 1.0, 0.5, 0.25),
           counts=(2, 4, 8, 16, 32, 64, 128, 256), scales=(0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)):  # fmt: skip
    @jax.jit
    @jax.vmap
    def one(key, of_problem):
        """KL and reward of every policy, in the order of `policies` below, and the frontier."""
        table, rewards = problem(of_problem)
        reference = string_logps(table)
        tuned = as_table(analysis.kl_regularised_optimum(reference, rewards, beta=TUNED_BETA))
        laws = [jnp.log(selection.best_of_n_law(jnp.exp(reference), rewards, n=n)) for n in counts]
        laws += [string_logps(combinations.rlg(jax.nn.log_softmax(table), tuned, scale=w)) for w in scales]
        laws = jnp.stack(laws)
        for number, objective in enumerate(TRAINED.values()):
            found = jax.vmap(
                lambda beta, objective=objective, number=number: train(
                    jax.random.fold_in(key, number), objective, table, rewards, beta, steps=steps, samples=samples,
                    learning_rate=learning_rate,
                )
            )(jnp.array(betas))  # fmt: skip
            laws = jnp.concatenate([laws, found])
        kls = jax.vmap(lambda law: games.kl_divergence(law, reference))(laws)
        frontier = analysis.kl_reward_frontier(reference, rewards, betas=tuple(np.geomspace(0.02, 100, 400)))
        return kls, jnp.exp(laws) @ rewards, frontier

    keys = [jax.random.split(jax.random.key(n), seeds) for n in range(2)]
    kls, rewards, frontier = jax.tree.map(np.asarray, one(*keys))
    policies = [("best of n", n) for n in counts] + [("guidance", w) for w in scales]
    policies += [(name, beta) for name in TRAINED for beta in betas]
    points, best = [], []
    for s in range(seeds):
        order = np.argsort(frontier.kls[s])
        for i, (method, setting) in enumerate(policies):
            possible = np.interp(kls[s, i], frontier.kls[s][order], frontier.rewards[s][order])
            points.append(
                {
                    "method": method, "setting": setting, "seed": s, "kl_nats": float(kls[s, i]),
                    "reward": float(rewards[s, i]), "share_of_possible": float(rewards[s, i] / possible),
                }
            )  # fmt: skip
        columns = (x[s][order][::8] for x in (frontier.kls, frontier.rewards))
        best += [{"seed": s, "kl_nats": float(x), "reward": float(y)} for x, y in zip(*columns, strict=True)]
    return {"points": points, "frontier": best}


def mean_at(tables, method: str, setting: float) -> tuple[float, float]:
    """Mean over the problems of the KL and of the share of the best gain."""
    rows = style.select(tables["points"], method=method, setting=setting)
    return tuple(np.mean([row[key] for row in rows]) for key in ("kl_nats", "share_of_possible"))


def figure(tables):
    drawn, axes = style.panels(2)
    best = style.select(tables["frontier"], seed=0)
    axes[0].plot([r["kl_nats"] for r in best], [r["reward"] for r in best], color="0.4", label="best possible")
    axes[1].axhline(1, color="0.4")
    for method, colour, marker in zip(
        style.distinct(tables["points"], "method"), style.COLOURS, style.MARKERS, strict=False
    ):
        rows = style.select(tables["points"], method=method)
        first = style.select(rows, seed=0)
        axes[0].plot(
            [r["kl_nats"] for r in first], [r["reward"] for r in first], marker, ls="", color=colour, label=method
        )
        _, kls = style.over_seeds(rows, "setting", "kl_nats")
        _, shares = style.over_seeds(rows, "setting", "share_of_possible")
        axes[1].plot(kls.mean(0), shares.mean(0), color=colour, marker=marker)
        axes[1].fill_between(kls.mean(0), shares.min(0), shares.max(0), color=colour, alpha=0.2, linewidth=0)
    axes[0].set(xlim=(0, 6), xlabel="KL from the reference, nats", ylabel="mean reward", title="one problem")
    axes[1].set(
        xlim=(0, 6), xlabel="KL from the reference, nats", ylabel="share of the best gain at this KL",
        title="every problem",
    )  # fmt: skip
    axes[0].legend()
    return drawn
