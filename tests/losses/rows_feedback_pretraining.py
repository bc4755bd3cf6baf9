"""Rows of the contract suite for alignment.losses.feedback_pretraining."""

import jax.numpy as jnp
import numpy as np
from contract import NEGATIVE_BETA, ZERO_BETA, B, Row, T, hidden_tokens, token_mask

LOG_HALF = -0.6931472


def _tokens(rng):
    return {
        "policy_token_logps": -rng.gamma(1.0, size=(B, T)),
        "token_rewards": -rng.choice([0.0, 0.3, 0.9], size=(B, T)),
        "mask": token_mask(rng, (B, T)),
    }


def _with_values(rng):
    tokens = _tokens(rng)
    return {"policy_token_logps": tokens.pop("policy_token_logps"), "token_values": -rng.random((B, T)), **tokens}


def _awr_pinned(inputs, hyper):
    weights = jnp.exp((inputs["token_rewards"] - inputs["token_values"]) / hyper["beta"])

    def loss(logps, values, rewards, mask):
        both = -hyper["alpha"] * weights * logps + (1 - hyper["alpha"]) * (rewards - values) ** 2
        return jnp.where(mask, both, 0.0)

    return loss


HIDDEN = {name: hidden_tokens("mask") for name in ("policy_token_logps", "token_rewards")}
COMMON = {"inputs": _tokens, "trains": ("policy_token_logps",), "hidden": HIDDEN, "per": "token"}
NEGATIVE_ALPHA = ("alpha", -0.1, "[0, inf)")
WEIGHTS = (NEGATIVE_BETA, ZERO_BETA, ("highest_weight", 0.0, "(0, inf)"))


def hand(logps, rewards):
    return {
        "policy_token_logps": [[*logps, np.nan]],
        "token_rewards": [[*rewards, np.nan]],
        "mask": [[True] * len(logps) + [False]],
    }


ROWS = (
    Row(
        "phf_unlikelihood",
        # a good token of probability 1/2 and a bad one
        hand=(
            (hand([LOG_HALF] * 2, [-0.05, -0.2]), {"alpha": 2.0, "threshold": 0.1}, [[0.693147, 1.386294, 0.0]]),
            # probability 1: what is left is taken as 1e-20
            (hand([0.0], [-1.0]), {}, [[46.0517, 0.0]]),
        ),
        hyper={"alpha": 0.7, "threshold": 0.5},
        out_of_range=(NEGATIVE_ALPHA, ("threshold", -0.1, "[0, inf)")),
        **COMMON,
    ),
    Row(
        "phf_soft_unlikelihood",
        # (3/4 + 2 * 1/4) * log 2; a score above 1 is 1
        hand=((hand([LOG_HALF] * 2, [-0.25, -3.0]), {"alpha": 2.0}, [[0.866434, 1.386294, 0.0]]),),
        hyper={"alpha": 0.7},
        out_of_range=(NEGATIVE_ALPHA,),
        **COMMON,
    ),
    Row(
        "phf_rwr",
        # exp(-1), and exp(6) cut to 2
        hand=((hand([-1.0, -1.0], [-0.5, 3.0]), {"beta": 0.5, "highest_weight": 2.0}, [[0.367879, 2.0, 0.0]]),),
        hyper={"beta": 0.7},
        out_of_range=WEIGHTS,
        **COMMON,
    ),
    Row(
        "phf_awr",
        # e / 4 + 3/4 * 0.5^2
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, np.nan]],
                    "token_values": [[-1.0, np.inf]],
                    "token_rewards": [[-0.5, np.nan]],
                    "mask": [[True, False]],
                },
                {"alpha": 0.25, "beta": 0.5},
                [[0.867070, 0.0]],
            ),
        ),
        hyper={"alpha": 0.4, "beta": 0.7},
        out_of_range=(("alpha", -0.1, "[0, 1]"), ("alpha", 1.1, "[0, 1]"), *WEIGHTS),
        pinned=_awr_pinned,
        **COMMON
        | {
            "inputs": _with_values,
            "trains": ("policy_token_logps", "token_values"),
            "hidden": HIDDEN | {"token_values": hidden_tokens("mask")},
        },
    ),
)
