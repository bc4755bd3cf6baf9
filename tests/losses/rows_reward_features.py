"""Rows of the contract suite for alignment.losses.reward_features."""

import jax
import jax.numpy as jnp
import numpy as np
from contract import B, Row, T, token_mask

from alignment import losses

D = 6
FEATURES = tuple(f"{side}_{view}features" for view in ("", "second_") for side in ("chosen", "rejected"))
TOKENS = ("chosen_token_features", "rejected_token_features")


def views(rng):
    return {**{name: rng.normal(size=(B, D)) for name in FEATURES}, "valid": np.arange(B) % 4 != 2}


def with_prototypes(rng):
    inputs = views(rng)
    valid = inputs.pop("valid")
    return {**inputs, "head_weights": rng.normal(size=(4, D)), "valid": valid}


def tokens(rng):
    return {
        **{name: rng.normal(size=(B, T, D)) for name in TOKENS},
        **{f"{side}_mask": token_mask(rng, (B, T)) for side in ("chosen", "rejected")},
        "random_bits": rng.integers(0, 1000, B),
    }


def _padding(inputs):
    return ~inputs["valid"][:, None] & np.ones((1, D), bool)


def _behind(mask, valid=None):
    def hidden(inputs):
        gone = ~inputs[mask]
        if valid:
            gone = gone | ~inputs[valid][:, None]
        return np.repeat(gone[..., None], D, axis=-1)

    return hidden


def _swav_pinned(inputs, hyper):
    """With the codes of these inputs held: what the kernel computes, written out once more for one device."""

    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def scores(arrays):
        *features, weights, _ = arrays
        return [unit(f) @ unit(weights[1:]).T for f in features]

    valid = inputs["valid"]

    def codes(a, b):
        q = jnp.exp(jnp.concatenate([a, b]) / hyper["epsilon"]) * jnp.tile(valid, 2)[:, None]
        for _ in range(hyper["iterations"]):
            q = q / q.sum(0) / q.shape[1]
            q = q / jnp.maximum(q.sum(1, keepdims=True), 1e-300) / (2 * valid.sum())
        q = q / jnp.maximum(q.sum(1, keepdims=True), 1e-300)
        return jnp.split(q, 2)

    chosen, rejected, chosen_second, rejected_second = scores(list(inputs.values()))
    first, second = codes(chosen, rejected), codes(chosen_second, rejected_second)

    def loss(*arrays):
        logs = [jax.nn.log_softmax(s / hyper["tau"]) for s in scores(arrays)]
        held = (second[0], second[1], first[0], first[1])
        values = [-jnp.sum(q * p, axis=-1) for q, p in zip(held, logs, strict=True)]
        return jnp.where(valid, sum(values) / 2, 0.0)

    return loss


def _swav(*arrays, **hyper):
    """0 for rows that only pad: what the kernel says of them means nothing."""
    return jnp.where(arrays[-1], losses.rm_swav_loss(*arrays, **hyper), 0.0)


# cosines of the views: 1 with themselves, 0 with the other response; of the row of padding nothing is known
ORTHONORMAL = {
    "chosen_features": [[3.0, 0.0], [np.nan, 1.0]],
    "rejected_features": [[0.0, 2.0], [np.inf, 1.0]],
    "chosen_second_features": [[1.0, 0.0], [np.nan, 1.0]],
    "rejected_second_features": [[0.0, 1.0], [1.0, 1.0]],
}
TAU = ("tau", 0.0, "(0, inf)")
BETA = ("beta", 0.0, "(0, inf)")
PERCENTILES = tuple((f"{which}_percentile", value, "[0, 1)") for which in ("source", "goal") for value in (-0.1, 1.0))
CONTRAST = {
    "inputs": views,
    "trains": FEATURES,
    "hyper": {"tau": 0.5},
    "out_of_range": (TAU,),
    "hidden": {name: _padding for name in FEATURES},
    "batch_wide": True,
}
# All cosines are 1 within the preferred response and -1 across: softplus(-1) = 0.313262 twice.
AGREE = {
    "chosen_token_features": [[[2.0, 0.0], [3.0, 0.0], [np.nan, 0.0]]],
    "rejected_token_features": [[[-1.0, 0.0], [np.nan, 0.0], [np.nan, 0.0]]],
    "chosen_mask": [[True, True, False]],
    "rejected_mask": [[True, False, False]],
    "random_bits": [3],
}
GOALS = {"beta": 0.7, "positives": 3, "negatives": 4, "source_percentile": 0.2, "goal_percentile": 0.1}

ROWS = (
    Row(
        "rm_simcse_loss",
        # log(e^2 + 1) - 2 for both responses
        hand=(({**ORTHONORMAL, "valid": [True, False]}, {"tau": 0.5}, [0.126928, 2.079442 - 1.386294]),),
        **CONTRAST,
    ),
    Row(
        "rm_simcse_difference_loss",
        # differences (3, -2) and (1, -1): cosine 5 / sqrt 26 = 0.980581; log(1 + e^(-2 * 0.980581))
        hand=(({**ORTHONORMAL, "valid": [True, False]}, {"tau": 1.0}, [0.131638, 0.693147]),),
        **CONTRAST,
    ),
    Row(
        "rm_swav_loss",
        with_prototypes,
        (*FEATURES, "head_weights"),
        # One example, prototypes along the axes: scores (1, 0) and (0, 1) in both views. exp(S) is symmetric, so its
        # balanced code is its own row softmax: q = s(1) = 0.731059. -(q log q + (1 - q) log(1 - q)) = 0.582203, twice.
        hand=(
            (
                {**ORTHONORMAL, "head_weights": [[np.nan, 5.0], [2.0, 0.0], [0.0, 3.0]], "valid": [True, False]},
                {"epsilon": 1.0, "tau": 1.0},
                [1.164406, 0.0],
            ),
        ),
        hyper={"epsilon": 0.5, "tau": 0.4, "iterations": 3},
        out_of_range=(("epsilon", 0.0, "(0, inf)"), TAU, ("iterations", 0, "[1, inf)")),
        hidden={name: _padding for name in FEATURES},
        batch_wide=True,
        shared=("head_weights",),
        any_length=("head_weights",),
        loss=_swav,
        pinned=_swav_pinned,
    ),
    Row(
        "goal_contrastive_loss",
        lambda rng: {**tokens(rng), "valid": np.arange(B) % 4 != 2},
        TOKENS,
        hand=(({**AGREE, "valid": [True]}, {"beta": 0.5}, [0.313262]),),
        hyper=GOALS,
        out_of_range=(BETA, *PERCENTILES),
        hidden={f"{side}_token_features": _behind(f"{side}_mask", "valid") for side in ("chosen", "rejected")},
        batch_wide=True,
    ),
    Row(
        "goal_contrastive_mean_log_loss",
        tokens,
        TOKENS,
        hand=((AGREE, {"beta": 0.5}, [0.313262]),),
        hyper=GOALS,
        out_of_range=(BETA, *PERCENTILES),
        hidden={f"{side}_token_features": _behind(f"{side}_mask") for side in ("chosen", "rejected")},
    ),
)
