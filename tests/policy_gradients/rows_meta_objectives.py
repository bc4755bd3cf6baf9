"""Rows of the contract suite for alignment.policy_gradients.meta_objectives. M predictions, H hidden units."""

import jax.numpy as jnp
import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask

from alignment import policy_gradients

M, H, D = 3, 4, 3
POLICY = ("policy_token_logps",)
TOKENS = ("policy_token_logps", "behaviour_token_logps", "token_advantages")
HIDDEN = {name: hidden_tokens("mask") for name in TOKENS}
DRIFT = ("drift_hidden", "drift_output")
GRU = ("gru_input", "gru_recurrent", "gru_bias", "coefficient_head", "target_head")
SIGMA = ("sigma", 0.0, "(0, inf)")


def tokens(rng):
    behaviour = -1.5 + 0.5 * rng.normal(size=(B, T))
    return {
        "policy_token_logps": behaviour + 0.4 * rng.normal(size=(B, T)),
        "behaviour_token_logps": behaviour,
        "token_advantages": rng.normal(size=(B, T)),
        "mask": token_mask(rng, (B, T)),
    }


def drift(rng, features):
    return {"drift_hidden": rng.normal(size=(features, H)), "drift_output": rng.normal(size=H)}


def trajectory(rng):
    return {"token_rewards": rng.normal(size=(B, T)), "dones": rng.random((B, T)) < 0.3}


def network(rng, features=5):
    shapes = ((features, 3 * H), (H, 3 * H), (3 * H,), (H,), (H, M))
    return dict(zip(GRU, (0.5 * rng.normal(size=s) for s in shapes), strict=True))


def steps(rng):
    return {
        **trajectory(rng),
        "policy_token_logps": -rng.gamma(1.0, size=(B, T)),
        "predictions": rng.dirichlet(np.ones(M), (B, T)),
        "next_predictions": rng.dirichlet(np.ones(M), (B, T)),
        "embedding_hidden": rng.normal(size=(M, H)),
        "embedding_output": rng.normal(size=H),
    }


def agent(rng):
    return {
        "policy_token_logps": -rng.gamma(1.0, size=(B, T)),
        "policy_prediction_logits": rng.normal(size=(B, T, M)),
        "coefficients": rng.normal(size=(B, T)),
        "target_logits": rng.normal(size=(B, T, M)),
        "mask": token_mask(rng, (B, T)),
    }


def pairs(rng):
    return {
        "noises": rng.normal(size=(B, D)),
        "positive_returns": rng.normal(size=B),
        "negative_returns": rng.normal(size=B),
    }


def summed(name):
    return lambda *arrays: jnp.sum(getattr(policy_gradients, name)(*arrays), -1)


def both_heads(*arrays):
    coefficients, logits = policy_gradients.lpg_network(*arrays)
    return coefficients + 10 * logits[..., 0]


# Ratios 1.5 and 0.5, advantages 2 and -2, and one token that does not count.
STEP = {
    "policy_token_logps": [[-0.5945349, -1.6931472, np.nan]],
    "behaviour_token_logps": [[-1.0, -1.0, np.inf]],
    "token_advantages": [[2.0, -2.0, np.nan]],
    "mask": [[True, True, False]],
}
PERTURBED = {
    "noises": [[1.0, 0.0], [0.0, 2.0]],
    "positive_returns": [5.0, 1.0],
    "negative_returns": [2.0, 100.0],
}

ROWS = (
    Row(
        "discovered_drift",
        tokens,
        POLICY,
        # 1 - 2 tanh(1/2) = 0.075766 off the gain of 3; A log r = 1.386294, less 0.6 tanh(2.310491) = 0.588296
        hand=((STEP, {}, [[-2.924234, 1.797998, 0.0]]),),
        hyper={"a": 1.5, "b": 0.5},
        out_of_range=(("a", 0.0, "(0, inf)"), ("b", 0.0, "(0, inf)")),
        hidden=HIDDEN,
        per="token",
    ),
    Row(
        "ppo_drift",
        tokens,
        POLICY,
        hand=((STEP, {}, [[-2.4, 1.6, 0.0]]),),
        hyper={"eps": 0.2},
        out_of_range=(("eps", -0.1, "[0, inf)"),),
        hidden=HIDDEN,
        per="token",
    ),
    Row(
        "lpo",
        lambda rng: {**tokens(rng), **drift(rng, 8)},
        POLICY,
        # only A (1 - r) is looked at: -1 and -1; tanh(-1) * -1 - 1e-4 = 0.761494
        hand=(
            (
                {**STEP, "drift_hidden": [[0.0]] * 6 + [[1.0]] + [[0.0]], "drift_output": [-1.0]},
                {},
                [[-3.0 + 0.761494, 1.0 + 0.761494, 0.0]],
            ),
        ),
        hidden=HIDDEN,
        per="token",
        shared=DRIFT,
    ),
    Row(
        "ta_lpo",
        lambda rng: {**tokens(rng), "progress": rng.random(B), **drift(rng, 16)},
        POLICY,
        # the second copy of A (1 - r), at half of the training: tanh(-0.5) * -1 - 1e-4 = 0.462017
        hand=(
            (
                {
                    **STEP,
                    "progress": [0.5],
                    "drift_hidden": [[0.0]] * 14 + [[1.0]] + [[0.0]],
                    "drift_output": [-1.0],
                },
                {},
                [[-3.0 + 0.462017, 1.0 + 0.462017, 0.0]],
            ),
        ),
        hidden=HIDDEN,
        per="token",
        shared=DRIFT,
    ),
    Row(
        "lpg_inputs",
        steps,
        (),
        # 3 + 0 + 1/2 + 2 * 0.25 + 2 * 0.75, then 3 + 1 + 1/2 + 0.5 and nothing of the next episode
        hand=(
            (
                {
                    "token_rewards": [[3.0, 3.0]],
                    "dones": [[False, True]],
                    "policy_token_logps": [[-0.6931472, -0.6931472]],
                    "predictions": [[[0.25, 0.75]] * 2],
                    "next_predictions": [[[0.75, 0.25]] * 2],
                    "embedding_hidden": [[1.0], [0.0]],
                    "embedding_output": [2.0],
                },
                {},
                [[5.5, 5.0]],
            ),
        ),
        per="token",
        shared=("embedding_hidden", "embedding_output"),
        loss=summed("lpg_inputs"),
    ),
    Row(
        "ta_lpg_inputs",
        lambda rng: {
            "inputs": rng.normal(size=(B, T, 5)),
            "updates": rng.integers(0, 5, B),
            "horizons": rng.integers(5, 9, B),
        },
        (),
        # 1 + 2 + 1/4 + log 8
        hand=(({"inputs": [[[1.0, 2.0]]], "updates": [2], "horizons": [8]}, {}, [[5.329442]]),),
        per="token",
        loss=summed("ta_lpg_inputs"),
    ),
    Row(
        "lpg_network",
        lambda rng: {"inputs": rng.normal(size=(B, T, 5)), "dones": trajectory(rng)["dones"], **network(rng)},
        (),
        # gates 1/2; state tanh(1) / 2 = 0.380797 at the end, and tanh(1) / 2 + half of that before, unless it is over
        hand=(
            (
                {
                    "inputs": [[[1.0], [1.0]], [[1.0], [1.0]]],
                    "dones": [[False, True], [True, True]],
                    "gru_input": [[0.0, 0.0, 1.0]],
                    "gru_recurrent": [[0.0, 0.0, 0.0]],
                    "gru_bias": [0.0, 0.0, 0.0],
                    "coefficient_head": [1.0],
                    "target_head": [[0.1, 5.0]],
                },
                {},
                [[2 * 0.571196, 2 * 0.380797], [2 * 0.380797, 2 * 0.380797]],
            ),
        ),
        per="token",
        shared=GRU,
        loss=both_heads,
    ),
    Row(
        "lpg",
        agent,
        ("policy_token_logps", "policy_prediction_logits"),
        # -3 * -0.5, and half of log 2 - (log 4 + log(4/3)) / 2 turned round: KL of a half from a quarter = 0.143841
        hand=(
            (
                {
                    "policy_token_logps": [[-0.5, np.nan]],
                    "policy_prediction_logits": [[[1.0, 1.0], [np.nan, 0.0]]],
                    "coefficients": [[3.0, np.inf]],
                    "target_logits": [[np.log([1.0, 3.0]), [np.nan, 0.0]]],
                    "mask": [[True, False]],
                },
                {},
                [[1.571921, 0.0]],
            ),
        ),
        hyper={"alpha": 0.7},
        out_of_range=(("alpha", -0.1, "[0, inf)"),),
        hidden={
            **{name: hidden_tokens("mask") for name in ("policy_token_logps", "coefficients")},
            **{
                name: lambda inputs: np.broadcast_to(~inputs["mask"][..., None], (B, T, M))
                for name in ("policy_prediction_logits", "target_logits")
            },
        },
        per="token",
    ),
    Row(
        "es_gradient",
        pairs,
        (),
        # ranks 2, 0, 1 and 3 of 3: differences 1/3 and -1, over 2 * 2 * 0.5
        hand=((PERTURBED, {"sigma": 0.5}, [1 / 6, -1.0]),),
        hyper={"sigma": 0.3},
        out_of_range=(SIGMA,),
        per="state",
        size=(D,),
    ),
    Row(
        "es_step",
        lambda rng: {"parameters": rng.normal(size=D), **pairs(rng)},
        (),
        hand=(({"parameters": [1.0, 1.0], **PERTURBED}, {"sigma": 0.5, "learning_rate": 0.6}, [1.1, 0.4]),),
        hyper={"sigma": 0.3, "learning_rate": 0.2},
        out_of_range=(SIGMA, ("learning_rate", 0.0, "(0, inf)")),
        per="state",
        size=(D,),
        shared=("parameters",),
    ),
)
