"""Rows of the contract suite for alignment.losses.reward_denoising."""

import numpy as np
from contract import SMOOTHING, B, K, Row, T, token_mask

REWARDS = ("chosen_rewards", "rejected_rewards")


def voted(rng):
    return {name: rng.normal(size=B) for name in (*REWARDS, "strength_means")}


def samples(rng):
    mask = token_mask(rng, (B, K, T))
    mask[:3, -1] = False
    return {"samples_rewards": rng.normal(size=(B, K)), "samples_mask": mask}


# gaps 1 and -1, of which the second is turned round; softplus(-1) = 0.313262, softplus(1) = 1.313262
VOTED = {"chosen_rewards": [2.0, 0.0], "rejected_rewards": [1.0, 1.0], "strength_means": [0.5, -0.4]}
VOTES = {
    "inputs": voted,
    "trains": REWARDS,
    "hyper": {"threshold": -0.2, "label_smoothing": 0.2},
    "out_of_range": (("threshold", float("nan"), "[-inf, inf]"), *SMOOTHING),
}

ROWS = (
    Row(
        "denoised_bt_loss",
        hand=((VOTED, {"threshold": 0.0, "label_smoothing": 0.25}, [0.563262, 0.563262]),),
        **VOTES,
    ),
    Row(
        "denoised_bt_margin_loss",
        # 1 - 0.5 and 1 - 0.4: softplus(-0.5) = 0.474077, softplus(-0.6) = 0.437488
        hand=((VOTED, {"threshold": 0.0, "label_smoothing": 0.0}, [0.474077, 0.437488]),),
        **VOTES,
    ),
    Row(
        "meta_rm_separation",
        samples,
        ("samples_rewards",),
        # s(1) = 0.731059, s(2) = 0.880797: 2/9 * (2 * 0.731059 + 0.880797); two there: 2/4 * s(1)
        hand=(
            (
                {
                    "samples_rewards": [[0.0, 1.0, 2.0], [1.0, np.nan, 2.0]],
                    "samples_mask": [[[True], [True], [True]], [[True], [False], [True]]],
                },
                {},
                [0.520648, 0.365529],
            ),
        ),
        hidden={"samples_rewards": lambda inputs: ~inputs["samples_mask"].any(-1)},
    ),
)
