"""Rows of the contract suite for alignment.policy_gradients.filters."""

import numpy as np
from contract import B, Row

# Group 7 has 1, 3 and 3 (the first of the two is the top), group 2 has 0 and 5; the last row only pads.
GROUPS = {
    "rewards": [1.0, 3.0, 3.0, 0.0, 5.0, np.nan],
    "group_ids": [7, 7, 7, 2, 2, 2],
    "valid": [True, True, True, True, True, False],
}


def groups(rng):
    valid = np.ones(B, bool)
    valid[2] = False
    return {"rewards": rng.normal(size=B), "group_ids": rng.integers(3, size=B) * 5 - 2, "valid": valid}


def padding(inputs):
    return ~inputs["valid"]


def scored(rng):
    valid = np.ones(B, bool)
    valid[2] = False
    rewards = rng.normal(size=B)
    return {
        "rewards": rewards,
        "true_rewards": rewards + rng.normal(size=B),
        "weights": rng.random(B),
        "valid": valid,
    }


COMMON = {"inputs": groups, "trains": (), "hidden": {"rewards": padding}, "batch_wide": True}

ROWS = (
    Row("pf_bon_weights", hand=((GROUPS, {}, [0, 1, 0, 0, 1, 0]),), **COMMON),
    Row(
        "pf_br_weights",
        hand=((GROUPS, {}, [0.1, 0.4, 0.1, 0.1, 0.4, 0]),),
        hyper={"top": 0.7, "rest": 0.2},
        out_of_range=(("top", -0.1, "[0, inf)"), ("rest", -0.1, "[0, inf)")),
        **COMMON,
    ),
    Row("pf_bw_weights", hand=((GROUPS, {}, [1, 1, 0, 1, 1, 0]),), **COMMON),
    Row(
        "pf_pow_weights",
        lambda rng: {name: value for name, value in groups(rng).items() if name != "group_ids"},
        (),
        hand=(({"rewards": [-3.0, 0.5, np.nan], "valid": [True, True, False]}, {}, [9.0, 0.25, 0.0]),),
        out_of_range=(("power", -0.1, "[0, inf)"),),
        hidden={"rewards": padding},
    ),
    Row(
        "pf_r_squared",
        scored,
        (),
        # covariance 1/3, variances 2/3 and 2/9; then scores that do not vary
        hand=(
            (
                {
                    "rewards": [0.0, 1.0, 2.0, np.nan],
                    "true_rewards": [0.0, 1.0, 1.0, 5.0],
                    "weights": [2.0, 2.0, 2.0, 9.0],
                    "valid": [True, True, True, False],
                },
                {},
                0.75,
            ),
            (
                {"rewards": [0.0, 1.0], "true_rewards": [1.0, 1.0], "weights": [1.0, 1.0], "valid": [True, True]},
                {},
                0.0,
            ),
        ),
        per="state",
        size=(),
        hidden={name: padding for name in ("rewards", "true_rewards", "weights")},
        extremes={"weights": (0.0, 1.0, 1e4)},
    ),
)
