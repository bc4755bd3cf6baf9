"""Which pairs teach: the weight that preference losses give a pair, by its margin (FocalPO, arXiv 2501.06645)."""

import jax
import jax.numpy as jnp

from alignment import losses
from experiments.reproductions import style

SMALL = None
NEIGHBOURS = {
    "DPO": (losses.dpo, {}),
    "cDPO, 0.1": (losses.cdpo, {"label_smoothing": 0.1}),
    "robust DPO, 0.1": (losses.robust_dpo, {"flip_rate": 0.1}),
    "APO-zero": (losses.apo_zero, {}),
    "DiscoPOP": (losses.discopop, {}),
}


def weights(loss, margins: jax.Array, **hyperparameters) -> jax.Array:
    """-dL/dh of a loss at each margin h, with beta = 1 so that h is the margin: positive pushes the pair apart."""
    zero = jnp.zeros(())
    slope = jax.grad(lambda h: loss(h, zero, zero, zero, beta=1.0, **hyperparameters))
    return -jax.vmap(slope)(margins)


def tables(*, gammas=(0.0, 0.05, 0.2, 0.5, 1.0), points=801):
    margins = jnp.linspace(-8.0, 8.0, points)
    curves = {"FocalPO": {f"gamma {g:g}": weights(losses.focal_po, margins, gamma=g) for g in gammas}}
    curves["its neighbours"] = {name: weights(loss, margins, **hyper) for name, (loss, hyper) in NEIGHBOURS.items()}
    rows, peaks = [], []
    for family, by_method in curves.items():
        for method, values in by_method.items():
            rows += [
                {"family": family, "method": method, "margin_nats": float(h), "weight": float(w)}
                for h, w in zip(margins, values, strict=True)
            ]
            largest = float(margins[jnp.argmax(values)])
            peaks.append({"family": family, "method": method, "margin_of_largest_weight_nats": largest})
    return {"weights": rows, "peaks": peaks}


def figure(tables):
    drawn, axes = style.panels(2, sharex=True, sharey=True)
    for axis, family in zip(axes, style.distinct(tables["weights"], "family"), strict=True):
        of_family = style.select(tables["weights"], family=family)
        for method in style.distinct(of_family, "method"):
            rows = style.select(of_family, method=method)
            axis.plot([r["margin_nats"] for r in rows], [r["weight"] for r in rows], label=method)
        axis.axhline(0, color="0.5", lw=0.8)
        axis.axvline(0, color="0.5", lw=0.8)
        axis.set(title=family, xlabel="margin of the pair, beta h (nats)", ylim=(-1.2, 2.2))
        axis.legend()
    axes[0].set_ylabel("gradient weight")
    return drawn
