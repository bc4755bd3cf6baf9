"""Rows of the contract suite for alignment.losses.reward_modeling."""

from contract import REWARDS_OUT_OF_RANGE, B, Row

ROWS = (
    Row(
        "bt_reward_loss",
        lambda rng: {"chosen_rewards": rng.normal(size=B), "rejected_rewards": rng.normal(size=B)},
        ("chosen_rewards", "rejected_rewards"),
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
        lambda rng: {
            "chosen_rewards": rng.normal(size=B),
            "rejected_rewards": rng.normal(size=B),
            "margins": rng.random(B),
        },
        ("chosen_rewards", "rejected_rewards", "margins"),  # the catalogue holds nothing fixed
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
)
