"""Rows of the contract suite for alignment.policy_gradients.self_play."""

import jax.numpy as jnp
from contract import B, Row, T, hidden_tokens, token_mask

TAU = (("tau", -0.1, "[0, inf)"), ("tau", float("nan"), "[0, inf)"))


def _sequences(rng):
    return {
        "policy_logps": -10 + 4 * rng.normal(size=B),
        "reference_logps": -10 + 4 * rng.normal(size=B),
        "win_rates": rng.random(B),
    }


def _tokens(rng):
    return {
        "policy_token_logps": -2 + 0.4 * rng.normal(size=(B, T)),
        "reference_token_logps": -2 + 0.4 * rng.normal(size=(B, T)),
        "win_rates": rng.random(B),
        "mask": token_mask(rng, (B, T)),
    }


def _fixed(inputs, hyper):
    policy, reference, wins = inputs.values()
    advantages = wins - 0.5 - hyper["tau"] * (policy - reference)
    return lambda policy, *_: -advantages * policy


def _fixed_tokens(inputs, hyper):
    policy, reference, wins, mask = inputs.values()
    ratios = jnp.where(mask, policy - reference, 0.0)
    later = jnp.stack([ratios[:, t:].sum(-1) for t in range(T)], -1)
    advantages = wins[:, None] - 0.5 - hyper["tau"] * later
    return lambda policy, reference, wins, mask: jnp.where(mask, -advantages * policy, 0.0)


HIDDEN = hidden_tokens("mask")
ROWS = (
    Row(
        "nash_md_pg",
        _sequences,
        ("policy_logps",),
        # 0.8 - 0.5 - 0.2 * 0.5 = 0.2, times 2
        hand=(({"policy_logps": [-2.0], "reference_logps": [-2.5], "win_rates": [0.8]}, {"tau": 0.2}, [0.4]),),
        hyper={"tau": 0.3},
        out_of_range=TAU,
        pinned=_fixed,
        extremes={"win_rates": (0.0, 1.0)},
    ),
    Row(
        "nash_md_pg_tokens",
        _tokens,
        ("policy_token_logps",),
        # log-ratios 0.5 and -1, later sums -0.5 and -1: (0.3 + 0.1) * 1 and (0.3 + 0.2) * 2
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, -2.0, 9.0]],
                    "reference_token_logps": [[-1.5, -1.0, 9.0]],
                    "win_rates": [0.8],
                    "mask": [[True, True, False]],
                },
                {"tau": 0.2},
                [[0.4, 1.0, 0.0]],
            ),
        ),
        hyper={"tau": 0.3},
        out_of_range=TAU,
        hidden={"policy_token_logps": HIDDEN, "reference_token_logps": HIDDEN},
        per="token",
        pinned=_fixed_tokens,
        extremes={"win_rates": (0.0, 1.0)},
    ),
)
