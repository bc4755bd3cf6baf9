"""What group methods give a group of every success rate: GRPO, Dr. GRPO, NGRPO, DisCO, COPO and SPO on one batch."""

import functools

import jax
import jax.numpy as jnp

from alignment import policy_gradients as pg
from alignment.policy_gradients.success_trackers import spo, spo_prior
from experiments.reproductions import style

SMALL = None


@functools.partial(jax.jit, static_argnames=("group_size",))
def pulls(*, group_size):
    """{method: f[k, completion]}: on-policy, the factor of the gradient of each completion's mean log-prob.

    One group for every number k of right completions, 0 .. G, the right ones first.
    """
    size, groups = group_size, group_size + 1
    right_count = jnp.repeat(jnp.arange(groups), size)
    place = jnp.tile(jnp.arange(size), groups)
    correct, ids = place < right_count, right_count
    rewards, valid = correct.astype(jnp.float32), jnp.ones(groups * size, bool)
    # Right answers agree. Wrong ones either all differ or all agree on one wrong answer.
    scattered, unanimous = jnp.where(correct, 0, 1 + place), jnp.where(correct, 0, 1)

    def copo(answers):
        within, between = (
            pg.grpo_advantages(rewards, ids, valid),
            pg.copo_global_advantages(rewards, answers, ids, valid),
        )
        blend = pg.copo_blend_weights(rewards, answers, ids, valid)
        x = jnp.zeros((valid.size, 1))
        mask = jnp.ones(x.shape, bool)
        loss = lambda x: jnp.sum(pg.copo_surrogate(x, jnp.zeros_like(x), within, between, blend, mask))  # noqa: E731
        return -jax.grad(loss)(x)[:, 0]

    def disco(x):
        return jnp.sum(pg.disco_b_log_likelihood(x, correct, ids, jnp.ones(x.shape, bool), valid))

    # A tracker that has seen each prompt's group before, so that it knows the rate about as well as eight samples say.
    known = spo_prior(jnp.arange(groups, dtype=jnp.float32), jnp.full(groups, size))
    of_spo, _ = spo.loss(rewards, jnp.zeros_like(rewards), ids, valid, known, num_prompts=groups)
    by_method = {
        "GRPO": pg.grpo_advantages(rewards, ids, valid),
        "Dr. GRPO": pg.dr_grpo_advantages(rewards, ids, valid),
        "NGRPO": pg.ngrpo_advantages(rewards, ids, valid),
        "DisCO": -jax.grad(disco)(jnp.zeros((valid.size, 1)))[:, 0],
        "COPO, wrong answers differ": copo(scattered),
        "COPO, one wrong answer": copo(unanimous),
        "SPO": of_spo,
    }
    return {method: values.reshape(groups, size) for method, values in by_method.items()}


def tables(*, group_size=8):
    rows = []
    for method, values in pulls(group_size=group_size).items():
        for k, of_group in enumerate(values):
            row = {"method": method, "right": k, "group_size": group_size}
            row["pull"] = float(jnp.mean(jnp.abs(of_group)))
            row["advantage_of_right"] = float(of_group[0]) if k else None
            row["advantage_of_wrong"] = float(of_group[-1]) if k < group_size else None
            rows.append(row)
    return {"groups": rows}


def figure(tables):
    drawn, axes = style.panels(2, 2, sharex=True)
    (ours, weights), (correct, wrong) = axes
    for i, method in enumerate(style.distinct(tables["groups"], "method")):
        rows = style.select(tables["groups"], method=method)
        look = {"label": method, "color": style.COLOURS[i], "marker": style.MARKERS[i], "ms": 5}
        axis = ours if method in ("GRPO", "Dr. GRPO", "NGRPO", "DisCO") else weights
        axis.plot([r["right"] for r in rows], [r["pull"] for r in rows], **look)
        for axis, column in ((correct, "advantage_of_right"), (wrong, "advantage_of_wrong")):
            there = [r for r in rows if r[column] is not None]
            axis.plot([r["right"] for r in there], [r[column] for r in there], **look)
    largest = max(r["pull"] for r in tables["groups"])
    for axis, title in ((ours, "statistics of the group"), (weights, "statistics beyond the group")):
        axis.set(title=title, ylim=(-0.1, 1.35 * largest), ylabel="mean |pull| of a completion")
        axis.legend(loc="upper center", ncols=1 if axis is weights else 2)
    correct.set(title="a right completion", ylabel="pull")
    wrong.set(title="a wrong completion", ylabel="pull")
    for axis in (correct, wrong):
        axis.axhline(0, color="0.5", lw=0.8)
        axis.set(xlabel=f"right completions of {tables['groups'][0]['group_size']}")
    return drawn
