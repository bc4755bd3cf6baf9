"""Rows of the contract suite for alignment.policy_gradients.surrogates."""

import jax.numpy as jnp
import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask


def _tokens(rng):
    return {
        "policy_token_logps": -2 + 0.4 * rng.normal(size=(B, T)),
        "behaviour_token_logps": -2 + 0.4 * rng.normal(size=(B, T)),
        "token_advantages": rng.normal(size=(B, T)),
        "mask": token_mask(rng, (B, T)),
    }


def _sequences(rng):
    tokens = _tokens(rng)
    return {
        "policy_token_logps": tokens["policy_token_logps"],
        "behaviour_token_logps": tokens["behaviour_token_logps"],
        "advantages": rng.normal(size=B),
        "mask": tokens["mask"],
    }


def _values(rng):
    names = ("token_values", "behaviour_token_values", "token_returns")
    return {**{name: rng.normal(size=(B, T)) for name in names}, "mask": token_mask(rng, (B, T))}


def _cispo(tree, hyper):
    ratios = jnp.exp(tree["policy_token_logps"] - tree["behaviour_token_logps"])
    weights = jnp.clip(ratios, 1 - hyper["eps_low"], 1 + hyper["eps_high"])
    return lambda policy, _, advantages, mask: jnp.where(mask, -weights * advantages * policy, 0.0)


def _cispo_masked(tree, hyper):
    ratios = jnp.exp(tree["policy_token_logps"] - tree["behaviour_token_logps"])
    up, down = ratios > 1 + hyper["eps_high"], ratios < 1 - hyper["eps_low"]
    weights = jnp.where(jnp.where(tree["token_advantages"] > 0, up, down), 0.0, ratios)
    return lambda policy, _, advantages, mask: jnp.where(mask, -weights * advantages * policy, 0.0)


def _gspo_token(tree, hyper):
    mask, start = tree["mask"], tree["policy_token_logps"]
    log_ratios = jnp.where(mask, start - tree["behaviour_token_logps"], 0.0)
    s = jnp.exp(log_ratios.sum(-1, keepdims=True) / mask.sum(-1, keepdims=True))

    def loss(policy, _, advantages, mask):
        ratios = s * jnp.exp(policy - start)
        clipped = jnp.clip(ratios, 1 - hyper["eps_low"], 1 + hyper["eps_high"])
        return jnp.where(mask, jnp.maximum(-advantages * ratios, -advantages * clipped), 0.0)

    return loss


TRAINS = ("policy_token_logps",)
HIDDEN = dict.fromkeys(("policy_token_logps", "behaviour_token_logps", "token_advantages"), hidden_tokens("mask"))
HIDDEN_IN_SEQUENCES = dict.fromkeys(("policy_token_logps", "behaviour_token_logps"), hidden_tokens("mask"))
EPS = (("eps_low", -0.1, "[0, inf)"), ("eps_high", -0.1, "[0, inf)"))
WIDE = {"eps_low": 0.2, "eps_high": 0.3}
UP, DOWN = float(np.log(1.5)), float(np.log(0.5))
# Ratios 1.5 and 0.5, with advantage 2 in the first row and -1 in the second.
RATIOS = {
    "policy_token_logps": [[UP, DOWN, 9.0]] * 2,
    "behaviour_token_logps": [[0.0, 0.0, 9.0]] * 2,
    "token_advantages": [[2.0, 2.0, 9.0], [-1.0, -1.0, 9.0]],
    "mask": [[True, True, False]] * 2,
}
# The same ratios at log-probs -1 and -2.
WEIGHTED = {
    "policy_token_logps": [[-1.0, -2.0, 9.0]],
    "behaviour_token_logps": [[-1.0 - UP, -2.0 - DOWN, 9.0]],
    "token_advantages": [[2.0, -1.0, 9.0]],
    "mask": [[True, True, False]],
}
# Log-ratios log 4 and 0: the geometric mean is 2.
GEOMETRIC = {
    "policy_token_logps": [[float(np.log(4)), 0.0, 9.0]] * 2,
    "behaviour_token_logps": [[0.0, 0.0, 9.0]] * 2,
    "advantages": [1.0, -1.0],
    "mask": [[True, True, False]] * 2,
}
PER_TOKEN = {
    **{k: v for k, v in GEOMETRIC.items() if k not in ("advantages", "mask")},
    "token_advantages": [[1.0, -1.0, 9.0]] * 2,
    "mask": GEOMETRIC["mask"],
}

ROWS = (
    Row(
        "reinforce",
        lambda rng: {k: v for k, v in _tokens(rng).items() if k != "behaviour_token_logps"},
        TRAINS,
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, -2.0, 9.0]],
                    "token_advantages": [[2.0, -1.0, 9.0]],
                    "mask": [[True, True, False]],
                },
                {},
                [[2.0, -2.0, 0.0]],
            ),
        ),
        hidden=dict.fromkeys(("policy_token_logps", "token_advantages"), hidden_tokens("mask")),
        per="token",
    ),
    Row(
        "ppo",
        _tokens,
        TRAINS,
        hand=(
            (RATIOS, {}, [[-2.4, -1.0, 0.0], [1.5, 0.8, 0.0]]),
            (RATIOS, {"eps_high": 0.28}, [[-2.56, -1.0, 0.0], [1.5, 0.8, 0.0]]),
        ),
        out_of_range=EPS,
        hidden=HIDDEN,
        per="token",
    ),
    Row(
        "ppo_dual_clip",
        _tokens,
        TRAINS,
        hand=(
            (RATIOS, {"dual_clip": 1.25}, [[-2.4, -1.0, 0.0], [1.25, 0.8, 0.0]]),
            (RATIOS, {}, [[-2.4, -1.0, 0.0], [1.5, 0.8, 0.0]]),
        ),
        hyper={"dual_clip": 1.5},
        out_of_range=(*EPS, ("dual_clip", 1.0, "(1, inf]")),
        hidden=HIDDEN,
        per="token",
    ),
    Row(
        "ppo_sequence",
        lambda rng: {
            "policy_logps": -9 + 0.3 * rng.normal(size=B),
            "behaviour_logps": -9 + 0.3 * rng.normal(size=B),
            "advantages": rng.normal(size=B),
        },
        ("policy_logps",),
        hand=(
            (
                {
                    "policy_logps": [UP, DOWN, UP, DOWN],
                    "behaviour_logps": [0.0] * 4,
                    "advantages": [2.0, 2.0, -1.0, -1.0],
                },
                {},
                [-2.4, -1.0, 1.5, 0.8],
            ),
        ),
        out_of_range=EPS,
    ),
    Row(
        "ppo_value_loss",
        _values,
        ("token_values",),
        # Held at 0.7: errors 1 and 0.7 to the return 0, 1 and 1.3 to the return 2.
        hand=(
            (
                {
                    "token_values": [[1.0, 1.0, 9.0]],
                    "behaviour_token_values": [[0.5, 0.5, 9.0]],
                    "token_returns": [[0.0, 2.0, 5.0]],
                    "mask": [[True, True, False]],
                },
                {},
                [[0.5, 0.845, 0.0]],
            ),
        ),
        out_of_range=(("clip", 0.0, "(0, inf]"),),
        hidden=dict.fromkeys(("token_values", "behaviour_token_values", "token_returns"), hidden_tokens("mask")),
        per="token",
    ),
    Row(
        "gspo",
        _sequences,
        TRAINS,
        hand=((GEOMETRIC, {}, [-1.0004, 2.0]), (GEOMETRIC, {"eps_high": 0.5}, [-1.5, 2.0])),
        hyper=WIDE,
        out_of_range=EPS,
        hidden=HIDDEN_IN_SEQUENCES,
    ),
    Row(
        "gspo_token",
        _tokens,
        TRAINS,
        hand=((PER_TOKEN, {"eps_high": 0.5}, [[-1.5, 2.0, 0.0]] * 2),),
        hyper=WIDE,
        out_of_range=EPS,
        hidden=HIDDEN,
        per="token",
        pinned=_gspo_token,
    ),
    Row(
        "cispo",
        _tokens,
        TRAINS,
        # Weights 1.5 and 0.5 as they are, or 1.2 and 0.8.
        hand=(
            (WEIGHTED, {}, [[3.0, -1.0, 0.0]]),
            (WEIGHTED, {"eps_low": 0.2, "eps_high": 0.2}, [[2.4, -1.6, 0.0]]),
        ),
        hyper=WIDE,
        out_of_range=EPS,
        hidden=HIDDEN,
        per="token",
        pinned=_cispo,
    ),
    Row(
        "cispo_masked",
        _tokens,
        TRAINS,
        hand=((WEIGHTED, {}, [[0.0, 0.0, 0.0]]), (WEIGHTED, {"eps_low": 0.6, "eps_high": 0.6}, [[3.0, -1.0, 0.0]])),
        hyper=WIDE,
        out_of_range=EPS,
        hidden=HIDDEN,
        per="token",
        pinned=_cispo_masked,
    ),
    Row(
        "gmpo",
        _sequences,
        TRAINS,
        # Log-ratios 1 and 0.2 become 0.4 and 0.2 (mean 0.3); -1 and 0.2 become -0.4 and 0.2 (mean -0.1).
        hand=(
            (
                {
                    "policy_token_logps": [[1.0, 0.2, 9.0], [-1.0, 0.2, 9.0], [1.0, 0.2, 9.0]],
                    "behaviour_token_logps": [[0.0, 0.0, 9.0]] * 3,
                    "advantages": [2.0, -2.0, 0.0],
                    "mask": [[True, True, False]] * 3,
                },
                {},
                [-2.699718, 1.809675, 0.0],
            ),
        ),
        out_of_range=(("eps", -0.1, "[0, inf)"),),
        hidden=HIDDEN_IN_SEQUENCES,
    ),
)
