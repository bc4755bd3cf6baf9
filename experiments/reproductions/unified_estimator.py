"""One estimator for post-training: the coefficient of grad log pi that each method gives a token (arXiv 2509.04419)."""

import functools

import jax
import jax.numpy as jnp

from alignment import losses
from alignment import policy_gradients as pg
from experiments.reproductions import style

SMALL = None
EPS_HIGH = {"DAPO": 0.28, "CISPO": 4.0}


def _slots(x, old, a, mask):
    """Of each method its slots of the unified estimator, log pi_ref and the stabilisation, at log-probs x."""
    every, by_policy, by_old = (
        pg.upge_no_stabilisation(x, mask),
        pg.upge_policy_denominator(x, mask),
        pg.upge_behaviour_denominator(old, mask),
    )
    dapo = pg.upge_ppo_stabilisation(x, old, a, mask, eps_high=EPS_HIGH["DAPO"])
    cispo = pg.upge_clipped_weight_denominator(x, old, mask, eps_high=EPS_HIGH["CISPO"])
    return {
        "rollouts": {
            "REINFORCE": (by_policy, every),
            "PPO, GRPO": (by_old, pg.upge_ppo_stabilisation(x, old, a, mask)),
            "DAPO": (by_old, dapo),
            "CISPO": (cispo, every),
            "GSPO": (pg.upge_sequence_denominator(x, old, mask), pg.upge_sequence_stabilisation(x, old, a, mask)),
            "GMPO": (pg.upge_geometric_denominator(x, old, a, mask), pg.upge_log_stabilisation(x, old, a, mask)),
        },
        "given text": {
            "SFT": (by_policy, every),
            "DFT": (pg.upge_unit_denominator(x, mask), every),
            "LUFFY": (pg.upge_shaped_denominator(x, mask), every),
            "GOLD": (pg.upge_floored_denominator(x, mask), every),
            "A-LoL": (pg.upge_clipped_sequence_denominator(x, old, mask), every),
        },
    }


def _losses(old, a, mask):
    """Of each method its own kernel as a function of the log-probs, and whether it counts a completion, not tokens."""
    of_completion, demonstrations = a[:, 0], jnp.ones_like(mask)
    return {
        "REINFORCE": (lambda x: pg.reinforce(x, a, mask), False),
        "PPO, GRPO": (lambda x: pg.ppo(x, old, a, mask), False),
        "DAPO": (lambda x: pg.ppo(x, old, a, mask, eps_high=EPS_HIGH["DAPO"]), False),
        "CISPO": (lambda x: pg.cispo(x, old, a, mask, eps_high=EPS_HIGH["CISPO"]), False),
        "GSPO": (lambda x: pg.gspo(x, old, of_completion, mask), True),
        "GMPO": (lambda x: pg.gmpo(x, old, of_completion, mask), True),
        "SFT": (lambda x: losses.sft(x, mask), False),
        "DFT": (lambda x: losses.dft(x, mask), False),
        "LUFFY": (lambda x: pg.luffy(x, old, a, demonstrations, mask), False),
        "GOLD": (lambda x: pg.gold(x, of_completion, mask), False),
        "A-LoL": (lambda x: pg.a_lol(jnp.sum(x, -1), jnp.sum(old, -1), of_completion), False),
    }


@functools.partial(jax.jit, static_argnums=2)
def coefficients(x, old, advantage: float):
    """{(data, method): (c by the four slots, c by autodiff of its own loss)} of the first token of each row."""
    mask, a = jnp.ones(x.shape, bool), jnp.full(x.shape, advantage)
    own, found = _losses(old, a, mask), {}
    for data, by_method in _slots(x, old, a, mask).items():
        for method, (denominator, stable) in by_method.items():
            if data == "given text" and advantage < 0:
                continue
            unified = jax.grad(lambda y, d=denominator, s=stable: jnp.sum(pg.upge_surrogate(y, d, a, s, mask)))(x)
            loss, once_per_completion = own[method]
            kernel = jax.grad(lambda y, loss=loss: jnp.sum(loss(y)))(x)
            kernel = kernel * (x.shape[1] if once_per_completion else 1)
            found[data, method] = -unified[:, 0], -kernel[:, 0]
    return found


def tables(*, old_probability=0.1, length=256, points=161):
    """Completions whose first token has probability pi now, `old_probability` when drawn; the others did not move."""
    probabilities = jnp.logspace(-3, 0, points)
    x = jnp.full((points, length), jnp.log(0.5)).at[:, 0].set(jnp.log(probabilities))
    old = jnp.full((points, length), jnp.log(0.5)).at[:, 0].set(jnp.log(old_probability))
    curves, agreement = [], []
    for advantage in (1.0, -1.0):
        for (data, method), (unified, kernel) in coefficients(x, old, advantage).items():
            labels = {"data": data, "method": method, "advantage": advantage}
            curves += [
                labels | {"probability": float(p), "coefficient": float(c), "coefficient_of_the_kernel": float(k)}
                for p, c, k in zip(probabilities, unified, kernel, strict=True)
            ]
            difference = jnp.max(jnp.abs(unified - kernel) / jnp.maximum(jnp.abs(kernel), 1e-3))
            at = {f"coefficient_at_{p:g}": float(unified[jnp.argmin(jnp.abs(probabilities - p))]) for p in (0.01, 0.5)}
            agreement.append(labels | {"largest_relative_difference": float(difference)} | at)
    return {"coefficients": curves, "agreement": agreement}


def figure(tables):
    drawn, axes = style.panels(3)
    panels = ("rollouts", 1.0), ("rollouts", -1.0), ("given text", 1.0)
    for axis, (data, advantage) in zip(axes, panels, strict=True):
        of_panel = style.select(tables["coefficients"], data=data, advantage=advantage)
        for i, method in enumerate(style.distinct(of_panel, "method")):
            rows = style.select(of_panel, method=method)
            # Several coincide over part of the range: the later ones are thinner and do not hide the earlier.
            width = {"lw": 5 - 0.75 * i, "alpha": 0.85}
            axis.plot([r["probability"] for r in rows], [r["coefficient"] for r in rows], label=method, **width)
        axis.set(xscale="log", xlabel="probability of the token, pi", ylim=(-5.5, 5.5))
        axis.axhline(0, color="0.5", lw=0.8)
        if data == "rollouts":
            axis.axvline(0.1, color="0.5", lw=0.8)
            axis.set(title=f"rollouts, A = {advantage:+.0f}, pi_old = 0.1")
        else:
            axis.set(title="given text, A = 1, ref = 0.1", ylim=(-0.1, 2.1))
        axis.legend()
    axes[0].set_ylabel("c, factor of grad log pi")
    return drawn
