"""Rows of the contract suite for alignment.policy_gradients.mixed_policy."""

import jax.numpy as jnp
import numpy as np
from contract import B, Row, T, token_mask

from alignment.policy_gradients import sampled_tokens_mask

POLICY = ("policy_token_logps",)
LOG2 = 0.6931472


def _demonstrations(rng):
    mask = token_mask(rng, (B, T))
    shown = mask & (rng.random((B, T)) < 0.4)
    shown[::3] = mask[::3]
    return {"demonstration_mask": shown, "mask": mask}


def _rollouts(rng):
    logps = {f"{who}_token_logps": rng.normal(size=(B, T)) - 1.0 for who in ("policy", "behaviour")}
    return {**logps, "token_advantages": rng.normal(size=(B, T)), **_demonstrations(rng)}


def _srft(rng):
    return {
        "policy_token_logps": rng.normal(size=(B, T)) - 1.0,
        "policy_token_entropies": rng.gamma(1.0, size=(B, T)),
        "token_advantages": rng.normal(size=(B, T)),
        "correct": rng.random(B) < 0.5,
        **_demonstrations(rng),
    }


def _only_demonstrations(rng, *names):
    shown = _demonstrations(rng)["demonstration_mask"]
    return {**{name: rng.normal(size=(B, T)) for name in names}, "demonstration_mask": shown}


def _outside(inputs):
    return ~inputs["mask"]


def _not_shown(inputs):
    return ~inputs["demonstration_mask"]


def _shown_or_outside(inputs):
    return ~inputs["mask"] | inputs["demonstration_mask"]


# A token of a demonstration with pi = 1/10, a token of a rollout with ratio 2, and a token that is not there.
TOKENS = {
    "policy_token_logps": [[-2.3025851, -1.0, 9.0]],
    "behaviour_token_logps": [[7.0, -1.0 - LOG2, 9.0]],
    "token_advantages": [[0.5, -3.0, 9.0]],
}
MASKS = {"demonstration_mask": [[True, False, False]], "mask": [[True, True, False]]}
GAMMA = (("gamma", 0.0, "(0, inf)"), ("gamma", -1.0, "(0, inf)"))


def _explained(rng):
    return {
        "rewards": rng.normal(size=B),
        "group_ids": rng.integers(0, 3, B),
        "demonstration_mask": _demonstrations(rng)["demonstration_mask"],
        "valid": rng.random(B) < 0.8,
    }


def _as_numbers(mask, demonstration_mask):
    return sampled_tokens_mask(mask, demonstration_mask).astype(jnp.float32)


ROWS = (
    Row(
        "expo_advantages",
        _explained,
        (),
        # Samples 1, 0, 0 beside an explanation: mean 1/3, std sqrt(1/3). The second group has one sample.
        hand=(
            (
                {
                    "rewards": [1.0, 0.0, 0.0, 5.0, 1.0, 0.0],
                    "group_ids": [0, 0, 0, 0, 1, 1],
                    "demonstration_mask": [[False]] * 3 + [[True], [False], [True]],
                    "valid": [True] * 6,
                },
                {},
                [1.1547005, -0.5773503, -0.5773503, 0.0, 0.0, 0.0],
            ),
        ),
        out_of_range=(("eps", 0.0, "(0, inf)"),),
        batch_wide=True,
    ),
    Row(
        "sampled_tokens_mask",
        lambda rng: {k: v for k, v in sorted(_demonstrations(rng).items(), reverse=True)},
        (),
        hand=(
            (
                {"mask": [[True, True, False]], "demonstration_mask": [[True, False, False]]},
                {},
                [[0.0, 1.0, 0.0]],
            ),
        ),
        loss=_as_numbers,
        per="token",
    ),
    Row(
        "hpt_rows",
        lambda rng: {
            "correct": np.array([True, False, False, False, True, False, True, False]),
            "group_ids": np.array([7, 3, 7, 3, 7, 9, 9, 7]),
            "demonstration_mask": np.array([[i in (0, 3, 6), False, False, False, False] for i in range(B)]),
            "valid": np.array([True, True, True, True, False, True, True, True]),
        },
        (),
        # prompt 5: one of two rollouts right, no demonstration needed; prompt 2: none right, its demonstration trains
        hand=(
            (
                {
                    "correct": [True, False, True, False, True],
                    "group_ids": [5, 5, 5, 2, 2],
                    "demonstration_mask": [[False], [False], [True], [False], [True]],
                    "valid": [True] * 5,
                },
                {},
                [1.0, 1.0, 0.0, 0.0, 1.0],
            ),
            (
                {
                    "correct": [True, False, True],
                    "group_ids": [5, 5, 5],
                    "demonstration_mask": [[False], [False], [True]],
                    "valid": [True] * 3,
                },
                {"gate": 0.5},
                [0.0, 0.0, 1.0],
            ),
        ),
        out_of_range=(("gate", 1.5, "[-1, 1]"),),
        batch_wide=True,
    ),
    Row(
        "hpt_rollouts",
        _rollouts,
        POLICY,
        hand=(({**TOKENS, **MASKS}, {}, [[0.0, 6.0, 0.0]]),),
        hidden=dict.fromkeys(("policy_token_logps", "behaviour_token_logps", "token_advantages"), _shown_or_outside),
        per="token",
    ),
    Row(
        "demonstration_nll",
        lambda rng: _only_demonstrations(rng, "policy_token_logps"),
        POLICY,
        hand=(({"policy_token_logps": [[-1.5, 9.0]], "demonstration_mask": [[True, False]]}, {}, [[1.5, 0.0]]),),
        hidden={"policy_token_logps": _not_shown},
        per="token",
    ),
    Row(
        "luffy",
        _rollouts,
        POLICY,
        hand=(({**TOKENS, **MASKS}, {}, [[-0.25, 6.0, 0.0]]),),  # f(1/10) = 1/2 at gamma = 1/10
        hyper={"gamma": 0.3},
        out_of_range=GAMMA,
        hidden={
            "policy_token_logps": _outside,
            "behaviour_token_logps": _shown_or_outside,
            "token_advantages": _outside,
        },
        per="token",
    ),
    Row(
        "srft_demonstrations",
        lambda rng: _only_demonstrations(rng, "policy_token_logps", "policy_token_entropies"),
        POLICY,
        # H = log 2: 0.5 * 1/2 * 3 and * 1
        hand=(
            (
                {
                    "policy_token_logps": [[-3.0, -1.0, 9.0]],
                    "policy_token_entropies": [[0.0, 2 * LOG2, 9.0]],
                    "demonstration_mask": [[True, True, False]],
                },
                {},
                [[0.75, 0.25, 0.0]],
            ),
        ),
        hyper={"coefficient": 0.8},
        out_of_range=(("coefficient", -0.1, "[0, inf)"),),
        hidden=dict.fromkeys(("policy_token_logps", "policy_token_entropies"), _not_shown),
        per="token",
    ),
    Row(
        "srft_reinforcement",
        _srft,
        POLICY,
        # f(1/10) = 1/2; correct: 0.1 * 2 * 1; wrong: log pi
        hand=(
            (
                {
                    "policy_token_logps": [[-2.3025851, -1.0, 9.0], [-2.3025851, -1.0, 9.0]],
                    "policy_token_entropies": [[5.0, LOG2, 9.0], [5.0, LOG2, 9.0]],
                    "token_advantages": [[0.5, -3.0, 9.0], [0.5, -3.0, 9.0]],
                    "correct": [True, False],
                    "demonstration_mask": [[True, False, False], [True, False, False]],
                    "mask": [[True, True, False], [True, True, False]],
                },
                {},
                [[-0.25, 0.2, 0.0], [-0.25, -1.0, 0.0]],
            ),
        ),
        hyper={"positive_weight": 0.3, "gamma": 0.2},
        out_of_range=(("positive_weight", -0.1, "[0, inf)"), *GAMMA),
        hidden={
            "policy_token_logps": _outside,
            "policy_token_entropies": _shown_or_outside,
            "token_advantages": lambda inputs: ~inputs["demonstration_mask"],
        },
        per="token",
    ),
)
