"""Rows of the contract suite for alignment.policy_gradients.offline."""

import jax.numpy as jnp
import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask

EPS = (("eps", -0.1, "[0, 1]"), ("eps", 1.1, "[0, 1]"))
LOGPS = {"policy_logps": [-1.0, -1.0], "reference_logps": [-1.5, -1.5]}  # ratio e^0.5 = 1.648721


def draw(*names):
    scale = {"policy_logps": (-10, 4), "reference_logps": (-10, 4)}
    return lambda rng: {n: scale.get(n, (0, 1))[0] + scale.get(n, (0, 1))[1] * rng.normal(size=B) for n in names}


def near(*names):
    """Ratios on both sides of the clip and inside."""

    def inputs(rng):
        logps = -10 + 4 * rng.normal(size=B)
        return {"policy_logps": logps, "reference_logps": logps + rng.normal(size=B), **draw(*names)(rng)}

    return inputs


def tokens(score, reference):
    def inputs(rng):
        names = ("policy_token_logps", "reference_token_logps")[: 1 + reference]
        logps = {name: -1.5 + 0.7 * rng.normal(size=(B, T)) for name in names}
        return {**logps, score: rng.normal(size=B), "mask": token_mask(rng, (B, T))}

    return inputs


def _ratio(log_ratios, eps):
    return jnp.clip(jnp.exp(log_ratios), 1 - eps, 1 + eps)


def _a_lol_pinned(inputs, hyper):
    weight = _ratio(inputs["policy_logps"] - inputs["reference_logps"], hyper["eps"])
    return lambda policy, reference, advantages: -jnp.maximum(advantages, 0) * weight * policy


def _r_lol_pinned(inputs, hyper):
    weight = _ratio(inputs["policy_logps"] - inputs["reference_logps"], hyper["eps"])
    return lambda policy, reference, rewards: -rewards * weight * policy


def _sequence_pinned(inputs, hyper):
    weight = _ratio(inputs["policy_token_logps"] - inputs["reference_token_logps"], hyper["eps"])

    def loss(policy, reference, advantages, mask):
        return -jnp.maximum(advantages, 0) * jnp.where(mask, weight * policy, 0).sum(-1)

    return loss


def _gold_pinned(inputs, hyper):
    weight = jnp.maximum(jnp.exp(jnp.minimum(inputs["policy_token_logps"], 0)), hyper["floor"])
    return lambda policy, rewards, mask: -rewards * jnp.where(mask, weight * policy, 0).sum(-1)


ROWS = (
    Row(
        "a_lol_advantages",
        draw("rewards", "reference_values"),
        (),
        hand=(({"rewards": [1.0, 0.5], "reference_values": [0.25, 2.0]}, {}, [0.75, 0.0]),),
    ),
    Row(
        "a_lol",
        near("advantages"),
        ("policy_logps",),
        hand=(
            ({**LOGPS, "advantages": [2.0, -1.0]}, {}, [3.297443, 0.0]),
            ({**LOGPS, "advantages": [2.0, 1.0]}, {"eps": 0.5}, [3.0, 1.5]),
        ),
        hyper={"eps": 0.6},
        out_of_range=EPS,
        pinned=_a_lol_pinned,
    ),
    Row(
        "a_lol_sequence",
        tokens("advantages", True),
        ("policy_token_logps",),
        # ratios e^0.5 and e^-1, clipped to 1.5 and 0.5: 2 * (1.5 * 1 + 0.5 * 2)
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, -2.0, np.nan]],
                    "reference_token_logps": [[-1.5, -1.0, np.inf]],
                    "advantages": [2.0],
                    "mask": [[True, True, False]],
                },
                {"eps": 0.5},
                [5.0],
            ),
        ),
        hyper={"eps": 0.6},
        out_of_range=EPS,
        hidden={name: hidden_tokens("mask") for name in ("policy_token_logps", "reference_token_logps")},
        pinned=_sequence_pinned,
    ),
    Row(
        "a_lol_reference_free",
        draw("policy_logps", "advantages"),
        ("policy_logps",),
        hand=(({"policy_logps": [-1.5, -1.0], "advantages": [2.0, -1.0]}, {}, [3.0, 0.0]),),
    ),
    Row(
        "a_lol_kl",
        draw("policy_logps", "reference_logps", "advantages"),
        ("policy_logps",),
        hand=(({**LOGPS, "advantages": [2.0, -1.0]}, {"beta": 0.5}, [2.25, 0.25]),),  # 0.5 * 0.5 on top
        hyper={"beta": 0.3},
        out_of_range=(("beta", -0.1, "[0, inf)"),),
    ),
    Row(
        "r_lol",
        near("rewards"),
        ("policy_logps",),
        hand=(({**LOGPS, "rewards": [2.0, -1.0]}, {}, [3.297443, -1.648721]),),
        hyper={"eps": 0.6},
        out_of_range=EPS,
        pinned=_r_lol_pinned,
    ),
    Row(
        "wbc",
        draw("policy_logps", "rewards"),
        ("policy_logps",),
        hand=(({"policy_logps": [-1.5, -1.0], "rewards": [2.0, -1.0]}, {}, [3.0, -1.0]),),
    ),
    Row(
        "gold",
        tokens("rewards", False),
        ("policy_token_logps",),
        # probabilities 0.5 and 0.05: 2 * (0.5 * 0.693147 + 0.1 * 2.995732)
        hand=(
            (
                {
                    "policy_token_logps": [[-0.6931472, -2.9957323, np.nan]],
                    "rewards": [2.0],
                    "mask": [[True, True, False]],
                },
                {},
                [1.292294],
            ),
        ),
        hyper={"floor": 0.2},
        out_of_range=(("floor", -0.1, "[0, 1]"), ("floor", 1.1, "[0, 1]")),
        hidden={"policy_token_logps": hidden_tokens("mask")},
        pinned=_gold_pinned,
    ),
)
