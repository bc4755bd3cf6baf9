"""Rows of the contract suite for alignment.policy_gradients.cgpo."""

import numpy as np
from contract import B, Row

GROUPS = np.array([7, 3, 7, 3, 7, 9, 9, 7])
VALID = np.array([True, True, True, True, False, True, True, True])
SATISFIED = np.array([True, False, True, True, True, False, False, True])
KL_MAX = ("kl_max", 0.0, "(0, inf)")


def _not_there(inputs):
    return ~inputs["valid"]


def _rewards(rng):
    return {"rewards": rng.normal(size=B), "baseline_rewards": rng.normal(size=B)}


def _logps(rng):
    return {"behaviour_logps": rng.normal(size=B), "reference_logps": rng.normal(size=B)}


ROWS = (
    Row(
        "cgpo_calibrated_rewards",
        lambda rng: _rewards(rng) | {"valid": VALID},
        (),
        hand=(
            (
                {"rewards": [1.0, 2.0, 9.0], "baseline_rewards": [1.0, 1.0, 9.0], "valid": [True, True, False]},
                {},
                [0.5, 0.731059, 0.0],
            ),
        ),
        hidden=dict.fromkeys(("rewards", "baseline_rewards"), _not_there),
    ),
    Row(
        "cgpo_crpg_advantages",
        lambda rng: _rewards(rng) | {"satisfied": SATISFIED} | _logps(rng) | {"valid": VALID},
        (),
        # a drift of 1 of 5 nats: 1/2 * 0.8, and a violation: 0
        hand=(
            (
                {
                    "rewards": [1.0, 1.0, 9.0],
                    "baseline_rewards": [1.0, 1.0, 9.0],
                    "satisfied": [True, False, True],
                    "behaviour_logps": [-1.0, -1.0, -1.0],
                    "reference_logps": [-2.0, -1.0, -1.0],
                    "valid": [True, True, False],
                },
                {},
                [0.2, -0.2, 0.0],
            ),
        ),
        out_of_range=(KL_MAX,),
        hidden=dict.fromkeys(("rewards", "baseline_rewards", "behaviour_logps", "reference_logps"), _not_there),
        batch_wide=True,
    ),
    Row(
        "cgpo_satisfiable",
        lambda rng: {"satisfied": SATISFIED, "group_ids": GROUPS, "valid": VALID},
        (),
        hand=(
            (
                {"satisfied": [True, False, False], "group_ids": [1, 1, 2], "valid": [True] * 3},
                {},
                [1.0, 1.0, 0.0],
            ),
        ),
        batch_wide=True,
    ),
    Row(
        "cgpo_eligible",
        lambda rng: {"satisfied": SATISFIED, **_logps(rng), "group_ids": GROUPS, "valid": VALID},
        (),
        # drifts of 6, 6 and 1
        hand=(
            (
                {
                    "satisfied": [True, True, True],
                    "behaviour_logps": [-1.0, -1.0, -1.0],
                    "reference_logps": [-7.0, -7.0, -2.0],
                    "group_ids": [1, 1, 2],
                    "valid": [True] * 3,
                },
                {},
                [0.0, 0.0, 1.0],
            ),
        ),
        hyper={"kl_max": 0.5},
        out_of_range=(KL_MAX,),
        hidden=dict.fromkeys(("behaviour_logps", "reference_logps"), _not_there),
        batch_wide=True,
    ),
    Row(
        "cgpo_task_advantages",
        lambda rng: {"advantages": rng.normal(size=B), "task_ids": np.array([0, 1, 0, 1, 1, 0, 0, 0]), "valid": VALID},
        (),
        # three and one of four: 0.5 * 4 / 3 and 0.5 * 4
        hand=(
            (
                {"advantages": [1.0] * 4, "task_ids": [0, 0, 0, 1], "valid": [True] * 4},
                {},
                [2 / 3, 2 / 3, 2 / 3, 2.0],
            ),
        ),
        hidden={"advantages": _not_there},
        batch_wide=True,
    ),
)
