"""Rows of the contract suite for alignment.policy_gradients.group_methods."""

import numpy as np
from contract import B, Row

EPS = ("eps", -0.1, "[0, inf)")
DDOF = ("ddof", 2, "[0, 1]")
HIDDEN = {"rewards": lambda inputs: ~inputs["valid"]}


def _rows(rng):
    """Groups of three, two and two, not next to each other, and a row that is not there."""
    return {
        "rewards": rng.normal(size=B),
        "group_ids": np.array([7, 3, 7, 3, 7, 9, 9, 7]),
        "valid": np.array([True, True, True, True, False, True, True, True]),
    }


def _rewards(rng):
    return {key: _rows(rng)[key] for key in ("rewards", "valid")}


def _with_strata(rng):
    rows = _rows(rng)
    return {"rewards": rows["rewards"], "strata": np.array([0, 1, 0, 1, 0, 2, 2, 1]), **{k: rows[k] for k in
            ("group_ids", "valid")}}  # fmt: skip


BINARY = {"rewards": [1.0, 0.0, 1.0], "valid": [True, True, False]}

ROWS = (
    Row(
        "lite_ppo_advantages",
        _rows,
        (),
        # group means 1 and 4; over the batch mean 2.5, squares 6.25 + 2.25 + 0.25 + 2.25 = 11, / 3: std 1.914854
        hand=(
            (
                {
                    "rewards": [0.0, 4.0, 2.0, 4.0, 9.0],
                    "group_ids": [5, 2, 5, 2, 5],
                    "valid": [True, True, True, True, False],
                },
                {"eps": 0.0},
                [-0.522233, 0.0, 0.522233, 0.0, 0.0],
            ),
        ),
        hyper={"eps": 0.1},
        out_of_range=(EPS, DDOF),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "ngrpo_advantages",
        _rows,
        (),
        # all wrong, G = 3 and one virtual 1: mean 1/4, squares 3/16 + 9/16 = 3/4, / 3: std 1/2, so -1/2 = -1/sqrt(4)
        hand=(
            (
                {"rewards": [0.0, 0.0, 0.0, 1.0], "group_ids": [5, 5, 5, 2], "valid": [True] * 4},
                {"eps": 0.0},
                [-0.5, -0.5, -0.5, 0.0],
            ),
        ),
        hyper={"max_reward": 2.0, "num_virtual": 2, "eps": 0.1},
        out_of_range=(EPS, DDOF, ("max_reward", float("inf"), "(-inf, inf)"), ("num_virtual", -1, "[0, inf)")),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row("psr_advantages", _rewards, (), hand=((BINARY, {}, [1.0, 0.0, 0.0]),), hidden=HIDDEN),
    Row("nsr_advantages", _rewards, (), hand=((BINARY, {}, [0.0, -1.0, 0.0]),), hidden=HIDDEN),
    Row(
        "weighted_reinforce_advantages",
        _rewards,
        (),
        hand=((BINARY, {}, [0.1, -1.0, 0.0]),),
        out_of_range=(("positive_weight", -0.1, "[0, inf)"),),
        hidden=HIDDEN,
    ),
    Row(
        "stratified_grpo_advantages",
        _with_strata,
        (),
        # strata (0, 2) and (4): scores -1, 1 and 0. Group (0, 2, 4): mean 2, std sqrt(8/3) = 1.632993, scores
        # -1.224745, 0, 1.224745. At alpha = 3/4: -0.75 - 0.306186, 0.75, 0.306186
        hand=(
            (
                {"rewards": [0.0, 2.0, 4.0], "strata": [0, 0, 2], "group_ids": [5, 5, 5], "valid": [True] * 3},
                {"alpha": 0.75},
                [-1.056186, 0.75, 0.306186],
            ),
        ),
        hyper={"alpha": 0.3, "eps": 0.1},
        out_of_range=(EPS, DDOF, ("alpha", 1.5, "[0, 1]")),
        hidden=HIDDEN,
        batch_wide=True,
    ),
)
