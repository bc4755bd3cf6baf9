"""Rows of the contract suite for alignment.losses.reward_modeling."""

from contract import POLICY, REWARDS_OUT_OF_RANGE, SMOOTHING, ZERO_BETA, B, Row

REWARDS = ("chosen_rewards", "rejected_rewards")


def rewards(rng):
    return {"chosen_rewards": rng.normal(size=B), "rejected_rewards": rng.normal(size=B)}


# d = 1 and d = -1: s(1) = 0.731059, softplus(-1) = 0.313262, softplus(1) = 1.313262
TWO = {"chosen_rewards": [2.0, 0.0], "rejected_rewards": [1.0, 1.0]}
TIED = {**TWO, "ties": [False, True]}
GAMMA = ("gamma", -0.1, "[0, inf)")
TARGET = ("target_gap", -0.1, "[0, inf)")

ROWS = (
    Row(
        "bt_reward_loss",
        rewards,
        REWARDS,
        # d = 0.5: softplus(-0.5) + 0.25 * 0.5 + 0.1 * 9; and softplus(-1)
        hand=(
            (
                {"chosen_rewards": [2.0], "rejected_rewards": [1.0]},
                {"temperature": 2.0, "label_smoothing": 0.25, "center_coef": 0.1},
                [1.499077],
            ),
            ({"chosen_rewards": [2.0], "rejected_rewards": [1.0]}, {}, [0.313262]),
        ),
        hyper={"temperature": 0.7, "label_smoothing": 0.1, "center_coef": 0.05},
        out_of_range=REWARDS_OUT_OF_RANGE,
    ),
    Row(
        "bt_reward_margin_loss",
        lambda rng: {**rewards(rng), "margins": rng.random(B)},
        (*REWARDS, "margins"),  # the catalogue holds nothing fixed
        # d = 0.25: softplus(-0.25) + 0.25 * 0.25 + 0.1 * 9
        hand=(
            (
                {"chosen_rewards": [2.0], "rejected_rewards": [1.0], "margins": [0.5]},
                {"temperature": 2.0, "label_smoothing": 0.25, "center_coef": 0.1},
                [1.538439],
            ),
        ),
        hyper={"temperature": 0.7, "label_smoothing": 0.1, "center_coef": 0.05},
        out_of_range=REWARDS_OUT_OF_RANGE,
    ),
    Row(
        "focal_reward_loss",
        rewards,
        REWARDS,
        # (2 * 0.268941)^2 * 0.313262; and p < 1/2, so plain 1.313262
        hand=((TWO, {"gamma": 2.0}, [0.090632, 1.313262]),),
        hyper={"gamma": 1.5},
        out_of_range=(GAMMA,),
    ),
    Row(
        "barrier_reward_loss",
        rewards,
        REWARDS,
        # limit 3: walls -log 5 at 2, -log 8 at 1, -log 9 at 0; 0.090632 - 0.1 * (1.609438 + 2.079442) / 2, and
        # 1.313262 - 0.1 * (2.197225 + 2.079442) / 2
        hand=((TWO, {"gamma": 2.0, "limit": 3.0, "barrier": 0.1}, [-0.093812, 1.099429]),),
        hyper={"gamma": 1.5, "limit": 4.0, "barrier": 0.1},
        out_of_range=(GAMMA, ("limit", 0.0, "(0, inf)"), ("barrier", -0.1, "[0, inf)")),
    ),
    Row(
        "hinge_reward_loss",
        rewards,
        REWARDS,
        hand=((TWO, {"target_gap": 1.5}, [0.5, 2.5]),),
        hyper={"target_gap": 0.8},
        out_of_range=(TARGET,),
    ),
    Row(
        "margin_mse_reward_loss",
        rewards,
        REWARDS,
        hand=((TWO, {"target_gap": 1.5}, [0.25, 6.25]),),
        hyper={"target_gap": 0.8},
        out_of_range=(TARGET,),
    ),
    Row(
        "scaled_bt_reward_loss",
        lambda rng: {**rewards(rng), "margins": 1 + 2 * rng.random(B)},
        REWARDS,
        hand=(({**TWO, "margins": [3.0, 1.0]}, {}, [0.939785, 1.313262]),),
    ),
    Row(
        "bt_with_ties",
        lambda rng: {**rewards(rng), "ties": rng.random(B) < 0.4},
        REWARDS,
        # eta = 0.5: softplus(-0.5) = 0.474077; softplus(1.5) = 1.701413, softplus(-0.5), log(e - 1) = 0.541325
        hand=((TIED, {"eta": 0.5}, [0.474077, 1.634165]),),
        hyper={"eta": 0.3},
        out_of_range=(("eta", -0.1, "[0, inf)"),),
    ),
    Row(
        "bt_with_ties_davidson",
        lambda rng: {**rewards(rng), "ties": rng.random(B) < 0.4},
        REWARDS,
        # e^0.5 + e^-0.5 + 0.5 = 2.755252, whose logarithm is 1.013509; less 0.5; less log 0.5
        hand=((TIED, {"nu": 0.5}, [0.513509, 1.706656]),),
        hyper={"nu": 0.3},
        out_of_range=(("nu", -0.1, "[0, inf)"),),
    ),
    Row(
        "genarm",
        lambda rng: {name: -10 + 4 * rng.normal(size=B) for name in POLICY},
        POLICY,
        # d = 0.5: softplus(-0.5) = 0.474077, a tenth of softplus(0.5) = 0.974077; d = 0.25
        hand=(
            ({"policy_chosen_logps": [-1.0], "policy_rejected_logps": [-2.0]}, {"beta": 0.5}, [0.474077]),
            (
                {"policy_chosen_logps": [-1.0], "policy_rejected_logps": [-2.0]},
                {"beta": 0.5, "label_smoothing": 0.1},
                [0.9 * 0.474077 + 0.1 * 0.974077],
            ),
            (
                {"policy_chosen_logps": [-1.0], "policy_rejected_logps": [-2.0]},
                {"beta": 0.5, "gamma": 0.25},
                [0.575939],
            ),
        ),
        hyper={"beta": 0.3, "label_smoothing": 0.1, "gamma": 0.2},
        out_of_range=(ZERO_BETA, *SMOOTHING, GAMMA),
    ),
)
