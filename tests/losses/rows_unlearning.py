"""Rows of the contract suite for alignment.losses.unlearning."""

import numpy as np
from contract import NAN_BETA, NEGATIVE_BETA, ZERO_BETA, B, Row, T, hidden_tokens, token_mask

BETAS = (NEGATIVE_BETA, ZERO_BETA, NAN_BETA)


def sums(*names):
    return lambda rng: {name: -10 + 4 * rng.normal(size=B) for name in names}


D = 6


def features(*names, mask):
    return lambda rng: {**{n: rng.normal(size=(B, T, D)) for n in names}, mask: token_mask(rng, (B, T))}


def behind(mask):
    return lambda inputs: np.repeat(~inputs[mask][..., None], D, axis=-1)


KEPT = ("retain_token_features", "reference_retain_token_features")


def with_lengths(rng):
    return {**sums("policy_forget_logps")(rng), "forget_lengths": rng.integers(1, T + 1, B)}


FORGET = ("policy_forget_logps", "reference_forget_logps")
FOUR = tuple(f"{whose}_{side}_logps" for whose in ("policy", "reference") for side in ("chosen", "forget"))

ROWS = (
    Row(
        "grad_ascent",
        lambda rng: {"policy_forget_token_logps": -rng.gamma(1.0, size=(B, T)), "forget_mask": token_mask(rng, (B, T))},
        ("policy_forget_token_logps",),
        hand=(({"policy_forget_token_logps": [[-0.5, -np.inf]], "forget_mask": [[True, False]]}, {}, [[-0.5, 0.0]]),),
        hidden={"policy_forget_token_logps": hidden_tokens("forget_mask")},
        per="token",
    ),
    Row(
        "kl_retain",
        lambda rng: {
            "policy_retain_token_forward_kls": rng.gamma(1.0, size=(B, T)),
            "retain_mask": token_mask(rng, (B, T)),
        },
        ("policy_retain_token_forward_kls",),
        hand=(
            ({"policy_retain_token_forward_kls": [[0.25, np.nan]], "retain_mask": [[True, False]]}, {}, [[0.25, 0.0]]),
        ),
        hidden={"policy_retain_token_forward_kls": hidden_tokens("retain_mask")},
        per="token",
    ),
    Row(
        "npo",
        sums(*FORGET),
        ("policy_forget_logps",),
        # d = -1, beta 0.5: 4 softplus(-0.5) = 4 * 0.474077
        hand=(({"policy_forget_logps": [-3.0], "reference_forget_logps": [-2.0]}, {"beta": 0.5}, [1.896308]),),
        hyper={"beta": 0.4},
        out_of_range=BETAS,
    ),
    Row(
        "simnpo",
        with_lengths,
        ("policy_forget_logps",),
        # n = 1.5, beta n - gamma = 0.5: 4 softplus(-0.5)
        hand=(({"policy_forget_logps": [-3.0], "forget_lengths": [2]}, {"beta": 0.5, "gamma": 0.25}, [1.896308]),),
        hyper={"beta": 0.7, "gamma": 0.3},
        out_of_range=(*BETAS, ("gamma", -0.1, "[0, inf)")),
    ),
    Row(
        "dpo_unlearn",
        sums(*FOUR),
        ("policy_chosen_logps", "policy_forget_logps"),
        # d_chosen = 0.5, d_forget = -1: beta times the difference is 0.75, 4 softplus(-0.75) = 4 * 0.386871
        hand=(
            ({name: [x] for name, x in zip(FOUR, (-1.0, -2.0, -1.5, -1.0), strict=True)}, {"beta": 0.5}, [1.547484]),
        ),
        hyper={"beta": 0.4},
        out_of_range=BETAS,
    ),
    Row(
        "uniform_retain",
        lambda rng: {
            "policy_retain_token_uniform_kls": rng.gamma(1.0, size=(B, T)),
            "retain_mask": token_mask(rng, (B, T)),
        },
        ("policy_retain_token_uniform_kls",),
        hand=(
            ({"policy_retain_token_uniform_kls": [[0.25, np.nan]], "retain_mask": [[True, False]]}, {}, [[0.25, 0.0]]),
        ),
        hidden={"policy_retain_token_uniform_kls": hidden_tokens("retain_mask")},
        per="token",
    ),
    Row(
        "rmu_forget",
        features("forget_token_features", mask="forget_mask"),
        ("forget_token_features",),
        # with one entry u = 1: (3 - 2)^2
        hand=(
            (
                {"forget_token_features": [[[3.0], [np.nan]]], "forget_mask": [[True, False]]},
                {"coefficient": 2.0},
                [[1.0, 0.0]],
            ),
        ),
        hyper={"coefficient": 2.0},
        out_of_range=(("coefficient", 0.0, "(0, inf)"), ("coefficient", -1.0, "(0, inf)")),
        hidden={"forget_token_features": behind("forget_mask")},
        per="token",
    ),
    Row(
        "rmu_retain",
        features(*KEPT, mask="retain_mask"),
        ("retain_token_features",),
        # (0.5^2 + 3^2) / 2
        hand=(
            (
                {
                    "retain_token_features": [[[1.0, 2.0], [np.nan, 0.0]]],
                    "reference_retain_token_features": [[[0.5, -1.0], [0.0, np.inf]]],
                    "retain_mask": [[True, False]],
                },
                {},
                [[4.625, 0.0]],
            ),
        ),
        hidden={name: behind("retain_mask") for name in KEPT},
        per="token",
    ),
)
