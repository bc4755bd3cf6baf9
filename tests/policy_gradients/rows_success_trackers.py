"""Rows of the contract suite for alignment.policy_gradients.success_trackers."""

import numpy as np
from contract import B, Row, T, token_mask

from alignment import policy_gradients
from alignment.policy_gradients.success_trackers import SpoState

RHO = (("d_half", 0.0, "(0, inf)"), ("rho_min", 1.0, "(0, 1)"), ("rho_max", 1.5, "(0, 1]"))


def _logps(rng):
    logps = {f"{who}_token_logps": rng.normal(size=(B, T)) for who in ("policy", "behaviour")}
    return {**logps, "mask": token_mask(rng, (B, T))}


def _spo(rewards, drifts, prompt_ids, valid, state, **hyper):
    """The state in one array: successes and failures of each prompt side by side."""
    state = SpoState(state[:, 0], state[:, 1])
    return policy_gradients.spo.loss(rewards, drifts, prompt_ids, valid, state, **{"num_prompts": 3, **hyper})[0]


def _prior(reward_sums, sample_counts, **hyper):
    state = policy_gradients.spo_prior(reward_sums, sample_counts, **hyper)
    return state.successes - 2 * state.failures


def _outside(inputs):
    return ~inputs["mask"]


LOGPS = {
    "policy_token_logps": [[-1.0, -2.0, 9.0]],
    "behaviour_token_logps": [[-2.0, -1.5, 0.0]],
    "mask": [[True, True, False]],
}
HIDDEN_LOGPS = {"policy_token_logps": _outside, "behaviour_token_logps": _outside}
VALID = np.array([True, True, True, True, False, True, True, True])

ROWS = (
    Row("spo_drifts", _logps, (), hand=((LOGPS, {}, [0.75]),), hidden=HIDDEN_LOGPS),
    Row("spo_signed_drifts", _logps, (), hand=((LOGPS, {}, [-0.25]),), hidden=HIDDEN_LOGPS),
    Row(
        "spo_forgetting",
        lambda rng: {"drifts": rng.gamma(1.0, size=B), "valid": VALID},
        (),
        hand=(
            (
                {"drifts": [0.0, 0.1, 0.2, 9.0], "valid": [True, True, True, False]},
                {"d_half": 0.1, "rho_min": 0.4, "rho_max": 0.9},
                [0.9, 0.5, 0.4, 1.0],
            ),
        ),
        hyper={"d_half": 0.7, "rho_min": 0.05},
        out_of_range=RHO,
        hidden={"drifts": lambda inputs: ~inputs["valid"]},
    ),
    Row(
        "spo_prior",
        lambda rng: {"reward_sums": 3 * rng.random(B), "sample_counts": rng.integers(3, 9, B)},
        (),
        # N0 = 4: alpha = 4 * 2.5 / 4 = 2.5, beta = 4 * 1.5 / 4 = 1.5; without samples 2 and 2
        hand=(({"reward_sums": [2.0, 0.0], "sample_counts": [3, 0]}, {"rho_min": 0.75}, [-0.5, -2.0]),),
        out_of_range=(("rho_min", 1.0, "(0, 1)"),),
        loss=_prior,
    ),
    Row(
        "spo_sampling_weights",
        lambda rng: {"successes": rng.gamma(2.0, size=B), "failures": rng.gamma(2.0, size=B)},
        (),
        # v = 1/2, 1/5 and, of no evidence, 1/2
        hand=(({"successes": [3.0, 1.0, 0.0], "failures": [3.0, 4.0, 0.0]}, {}, [0.55, 0.45, 0.55]),),
        out_of_range=(("exploration", -0.1, "[0, inf)"),),
    ),
    Row(
        "spo",
        lambda rng: {
            "rewards": rng.normal(size=B),
            "drifts": rng.gamma(1.0, size=B),
            "prompt_ids": np.array([0, 1, 2, 1, 0, 0, 2, 2]),
            "valid": VALID,
            "state": rng.gamma(2.0, size=(3, 2)),
        },
        (),
        # baselines 1/2, 1/5 and 1/2: gains 1/2, -1/5 and -1/2, mean -1/15, squares 0.321111 + 0.017778 + 0.187778,
        # / 2 = 0.263333, std 0.513160
        hand=(
            (
                {
                    "rewards": [1.0, 0.0, 0.0, 9.0],
                    "drifts": [0.0, 0.0, 0.0, 0.0],
                    "prompt_ids": [0, 2, 1, 1],
                    "valid": [True, True, True, False],
                    "state": [[3.0, 3.0], [2.0, 2.0], [1.0, 4.0]],
                },
                {},
                [1.104269, -0.259828, -0.844441, 0.0],
            ),
        ),
        hyper={"eps": 0.1},
        out_of_range=(*RHO, ("num_prompts", 0, "[1, inf)"), ("eps", -0.1, "[0, inf)")),
        hidden={name: (lambda inputs: ~inputs["valid"]) for name in ("rewards", "drifts")},
        shared=("state",),
        loss=_spo,
        batch_wide=True,
    ),
)
