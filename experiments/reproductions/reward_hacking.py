"""A reward that some responses hack, and judges that veto those: CGPO's three optimisers (arXiv 2409.20370)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alignment import losses, policy_gradients
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 40}
PROMPTS, ARMS, DRAWS = 16, 200, 4
HACKABLE, BONUS = 0.15, 6.0  # share of the arms that the reward overrates, and by how much; a judge sees all of them
KL_MAX = 5.0
EVERYWHERE = jnp.ones((PROMPTS, DRAWS), bool)
TOKENS = EVERYWHERE[..., None]  # a response is one token
GROUPS = jnp.repeat(jnp.arange(PROMPTS), DRAWS)


def problem(key):
    """Of each arm: its true reward, the reward that is optimised, whether the judge is satisfied; and the reward of a
    satisfying baseline answer to each prompt. Prompts have rewards of different heights."""
    of_true, of_hackable, of_prompts, of_baseline = jax.random.split(key, 4)
    true = jax.random.normal(of_true, (PROMPTS, ARMS))
    hackable = jax.random.uniform(of_hackable, (PROMPTS, ARMS)) < HACKABLE
    rewards = true + BONUS * hackable + 2 * jax.random.normal(of_prompts, (PROMPTS, 1))
    baselines = jax.random.categorical(of_baseline, jnp.where(hackable, -jnp.inf, 0.0))
    return true, rewards, ~hackable, jnp.take_along_axis(rewards, baselines[:, None], axis=1)[:, 0]


def _reinforce(logps, advantages):
    return jnp.mean(policy_gradients.reinforce(logps.reshape(-1, 1), advantages.reshape(-1, 1), TOKENS.reshape(-1, 1)))


def policy_gradient(logps, behaviour, reference, rewards, satisfied, baselines):
    advantages = policy_gradients.rloo_advantages(rewards.reshape(-1), GROUPS, EVERYWHERE.reshape(-1))
    return _reinforce(logps, advantages)


def policy_gradient_with_kl(logps, behaviour, reference, rewards, satisfied, baselines):
    shaped = rewards - (behaviour - reference)
    return policy_gradient(logps, behaviour, reference, shaped, satisfied, baselines)


def crpg(logps, behaviour, reference, rewards, satisfied, baselines):
    rows = (rewards, jnp.broadcast_to(baselines[:, None], rewards.shape), satisfied, behaviour, reference, EVERYWHERE)
    advantages = policy_gradients.cgpo_crpg_advantages(*(x.reshape(-1) for x in rows), kl_max=KL_MAX)
    return _reinforce(logps, advantages)


def codpo(logps, behaviour, reference, rewards, satisfied, baselines):
    values = losses.cgpo_codpo(logps, reference, rewards, satisfied, TOKENS)
    return _mean_over_kept(values, jnp.any(satisfied, axis=-1))


def crraft(logps, behaviour, reference, rewards, satisfied, baselines):
    values = losses.cgpo_crraft(logps, behaviour, reference, rewards, baselines, satisfied, TOKENS, kl_max=KL_MAX)
    return _mean_over_kept(values, jnp.any(satisfied & (behaviour - reference <= KL_MAX), axis=-1))


def _mean_over_kept(values, kept):
    return jnp.sum(values * kept) / jnp.maximum(jnp.sum(kept), 1)


METHODS = {
    "policy gradient": policy_gradient,
    "with KL penalty, beta 1": policy_gradient_with_kl,
    "CRPG": crpg,
    "CODPO": codpo,
    "CRRAFT": crraft,
}


def train(key, loss, true, rewards, satisfied, baselines, *, steps, learning_rate):
    """After every step, exactly: mean reward, share of violations, mean worth (the true reward, and 0 for a violation),
    KL from the uniform reference."""
    worth = jnp.where(satisfied, true, 0.0)
    optimizer = optax.adam(learning_rate)
    reference = jnp.full((PROMPTS, ARMS), -jnp.log(ARMS))

    def step(carry, key):
        logits, state = carry
        arms = jax.random.categorical(key, logits, shape=(DRAWS, PROMPTS)).T

        def at(table):
            return jnp.take_along_axis(table, arms, axis=1)

        def of(logits):
            logps = at(jax.nn.log_softmax(logits))
            return loss(logps, jax.lax.stop_gradient(logps), at(reference), at(rewards), at(satisfied), baselines)

        updates, state = optimizer.update(jax.grad(of)(logits), state)
        logits = optax.apply_updates(logits, updates)
        logps = jax.nn.log_softmax(logits)
        pi = jnp.exp(logps) / PROMPTS
        seen = [jnp.sum(pi * table) for table in (rewards, ~satisfied, worth, logps - reference)]
        return (logits, state), jnp.stack(seen)

    start = jnp.zeros((PROMPTS, ARMS))
    return jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(key, steps))[1]


def tables(*, seeds=5, steps=800, learning_rate=0.05, every=20):
    keys = jax.random.split(jax.random.key(0), seeds)
    problems = jax.vmap(problem)(jax.random.split(jax.random.key(1), seeds))

    @jax.jit
    @jax.vmap
    def all_methods(key, *problem):
        return [train(key, loss, *problem, steps=steps, learning_rate=learning_rate) for loss in METHODS.values()]

    rows = []
    for method, seen in zip(METHODS, map(np.asarray, all_methods(keys, *problems)), strict=True):
        rows += [
            {
                "method": method, "seed": s, "step": t + 1, "reward": float(seen[s, t, 0]),
                "violations": float(seen[s, t, 1]), "worth": float(seen[s, t, 2]),
                "kl_nats": float(seen[s, t, 3]),
            }
            for s in range(seeds)
            for t in range(every - 1, steps, every)
        ]  # fmt: skip
    return {"training": rows}


def at_end(tables, method: str) -> dict[str, float]:
    """Means over the seeds after the last step."""
    last = tables["training"][-1]["step"]
    rows = style.select(tables["training"], method=method, step=last)
    return {key: sum(row[key] for row in rows) / len(rows) for key in ("reward", "violations", "worth", "kl_nats")}


def figure(tables):
    columns = {
        "reward": "mean reward that is optimised", "violations": "share of violations",
        "worth": "mean true reward (0 for violations)",
    }  # fmt: skip
    drawn, axes = style.curves(tables["training"], "step", columns)
    axes[1].legend()
    return drawn
