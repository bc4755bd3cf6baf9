"""Rows of the contract suite for alignment.multi_objective.constraints."""

import numpy as np
from contract import B, Row, T, token_mask

from alignment.multi_objective import constrained_rlhf_mu, constrained_rlhf_xi, safe_rlhf
from alignment.multi_objective.constraints import MultiplierState, SafeState

VALID = np.array([True, True, True, True, False, True, True, True])
HIDDEN = {"objective_rewards": lambda inputs: ~inputs["valid"][:, None]}
TWO = {"objective_rewards": [[1.0, 3.0], [2.0, 2.0], [9.0, 9.0]], "valid": [True, True, False]}
RATES = (("learning_rate", 0.0, "(0, inf)"), ("momentum", 1.0, "[0, 1)"), ("clip", 0.0, "(0, inf)"))
# J is (2 * 1 + 0 * 3) / 4 = 1/2 and 2.
MOVES = {
    "multipliers": [[0.0, 0.0], [0.0, 0.0]],
    "objective_rewards": [[2.0, 2.0], [0.0, 2.0], [9.0, 9.0]],
    "lengths": [1, 3, 7],
    "valid": [True, True, False],
}
# Log-ratios to go 1, 0 and -1, 0: deviation sqrt(1/2). The rewards are -1 and 1 deviations from their mean.
MIXED = {
    "objective_rewards": [[1.0], [3.0]],
    "behaviour_token_logps": [[-2.0, -1.0], [-1.0, -1.0]],
    "reference_token_logps": [[-1.0, -1.0], [-2.0, -1.0]],
    "mask": [[True, True], [True, True]],
    "valid": [True, True],
    "state": [[0.0], [0.0]],
}


def _moves(rng):
    return {
        "multipliers": 0.1 * rng.normal(size=(2, 2)),
        "objective_rewards": rng.normal(size=(B, 2)),
        "lengths": rng.integers(1, 9, size=B),
        "valid": VALID,
    }


def _rollout(rng):
    return {
        "objective_rewards": rng.normal(size=(B, 2)),
        "behaviour_token_logps": rng.normal(size=(B, T)),
        "reference_token_logps": rng.normal(size=(B, T)),
        "mask": token_mask(rng, (B, T)),
        "valid": VALID,
        "state": rng.normal(size=(2, 2)),
    }


def _with_multipliers(method):
    def kernel(rewards, behaviour, reference, mask, valid, state, **hyper):
        return method.loss(rewards, behaviour, reference, mask, valid, MultiplierState(state), **hyper)[0]

    return kernel


def _safe(objective_rewards, valid, state, **hyper):
    assert state.shape == (2,)
    return safe_rlhf.loss(objective_rewards, valid, SafeState(*state, np.int32(1)), **hyper)[0]


def _tokens_not_there(inputs):
    return ~(inputs["mask"] & inputs["valid"][:, None])


HIDDEN_TOKENS = dict.fromkeys(("behaviour_token_logps", "reference_token_logps"), _tokens_not_there)

ROWS = (
    Row(
        "mixed_advantages",
        lambda rng: {
            "kl_advantages": rng.normal(size=B),
            "objective_advantages": rng.normal(size=(B, 2)),
            "multipliers": rng.random(2),
        },
        (),
        # (2 - 3/4) * 2 + 1/2 + 1
        hand=(
            (
                {"kl_advantages": [2.0], "objective_advantages": [[1.0, 4.0]], "multipliers": [0.5, 0.25]},
                {},
                [4.0],
            ),
        ),
        shared=("multipliers",),
    ),
    Row(
        "mu_multiplier_update",
        _moves,
        (),
        # s'(0) = 1/4 of -1/2; then of -8.5, clipped to 1/2
        hand=(
            (MOVES, {"thresholds": (1.0, 2.0)}, [[0.0125, 0.0], [-0.125, 0.0]]),
            (MOVES, {"thresholds": (9.0, 2.0)}, [[0.05, 0.0], [-0.5, 0.0]]),
        ),
        out_of_range=RATES,
        hidden=HIDDEN,
        per="state",
        size=(2, 2),
        shared=("multipliers",),
    ),
    Row(
        "xi_multiplier_update",
        _moves,
        (),
        # tanh'(0) = 1
        hand=((MOVES, {"thresholds": (0.75, 2.0)}, [[0.025, 0.0], [-0.25, 0.0]]),),
        out_of_range=RATES,
        hidden=HIDDEN,
        per="state",
        size=(2, 2),
        shared=("multipliers",),
    ),
    Row(
        "constrained_rlhf_mu",
        _rollout,
        (),
        # half of each: 0.707107 - 0.5 and -0.5
        hand=((MIXED, {"thresholds": (0.0,)}, [[0.207107, -0.5], [-0.207107, 0.5]]),),
        out_of_range=RATES,
        hidden=HIDDEN | HIDDEN_TOKENS,
        per="token",
        shared=("state",),
        loss=_with_multipliers(constrained_rlhf_mu),
        batch_wide=True,
    ),
    Row(
        "constrained_rlhf_xi",
        _rollout,
        (),
        # multipliers of 0: the KL alone
        hand=((MIXED, {"thresholds": (0.0,)}, [[1.414214, 0.0], [-1.414214, 0.0]]),),
        out_of_range=RATES,
        hidden=HIDDEN | HIDDEN_TOKENS,
        per="token",
        shared=("state",),
        loss=_with_multipliers(constrained_rlhf_xi),
        batch_wide=True,
    ),
    Row(
        "ppo_sat_rewards",
        lambda rng: {"objective_rewards": rng.normal(size=(B, 2)), "valid": VALID},
        (),
        # 0.25 * 1 + 0.75 * 2.5, 0.25 * 1.5 + 0.75 * 2
        hand=((TWO, {"weights": (0.25, 0.75), "thresholds": (1.5, 2.5)}, [2.125, 1.875, 0.0]),),
        hidden=HIDDEN,
    ),
    Row(
        "safe_rlhf",
        lambda rng: {"objective_rewards": rng.normal(size=(B, 2)), "valid": VALID, "state": rng.normal(size=2)},
        (),
        # lambda 1: (3 - 1) / 2, (1 + 1) / 2; lambda 3: (3 - 3) / 4, (1 + 3) / 4
        hand=tuple(
            (
                {
                    "objective_rewards": [[3.0, 1.0], [1.0, -1.0], [9.0, 9.0]],
                    "valid": [True, True, False],
                    "state": [np.log(multiplier), 0.0],
                },
                {},
                expected,
            )
            for multiplier, expected in ((1.0, [1.0, 1.0, 0.0]), (3.0, [0.0, 1.0, 0.0]))
        ),
        out_of_range=(
            ("d", float("inf"), "(-inf, inf)"),
            ("eta", 0.0, "(0, inf)"),
            ("multiplier", 0.0, "(0, inf)"),
            ("largest", 0.0, "(0, inf)"),
            ("decay", 1.0, "[0, 1)"),
        ),
        hidden=HIDDEN,
        shared=("state",),
        loss=_safe,
    ),
)
