"""Rows of the contract suite for alignment.losses.reward_heads."""

import numpy as np
from contract import B, Row

HEADS = ("chosen_head_rewards", "rejected_head_rewards")


def heads(rng, count):
    return {name: rng.normal(size=(B, count)) for name in HEADS}


def with_prompt(rng, count):
    return {**heads(rng, count), "prompt_head_rewards": rng.normal(size=(B, count))}


def odin(rng):
    lengths = {f"{side}_lengths": rng.integers(1, 40, B) for side in ("chosen", "rejected")}
    return {**heads(rng, 2), **lengths, "head_weights": rng.normal(size=(2, 5)), "valid": np.arange(B) % 4 != 2}


def _padding(inputs):
    return ~inputs["valid"][:, None] & np.ones((1, 2), bool)


TEMPERATURE = ("temperature", 0.0, "(0, inf)")
TARGET = ("target_gap", -0.1, "[0, inf)")

ROWS = (
    Row(
        "bt_reward_heads_loss",
        lambda rng: {**heads(rng, 3), "ids": rng.integers(0, 100, B)},
        HEADS,
        # gaps 1 and -1: (0.313262 + 1.313262) / 2
        hand=(({HEADS[0]: [[2.0, 0.0]], HEADS[1]: [[1.0, 1.0]], "ids": [3]}, {}, [0.813262]),),
        hyper={"share": 0.8},
        out_of_range=(("share", 0.0, "(0, 1]"), ("share", 1.5, "(0, 1]")),
    ),
    Row(
        "length_disentangled_rm",
        odin,
        (*HEADS, "head_weights"),
        # Both sums are equal: log 2. Lengths (10, 30, 20, 40) and the length head (1, 3, 2, 4): rho = 1. The quality
        # head (1, 1, 0, 0) around 0.5, lengths around 25: -7.5 + 2.5 + 2.5 - 7.5 = -10, rho = -10 / sqrt(500 * 1).
        # cos = 1 / sqrt 2.
        hand=(
            (
                {
                    HEADS[0]: [[1.0, 1.0], [3.0, 1.0]],
                    HEADS[1]: [[2.0, 0.0], [4.0, 0.0]],
                    "chosen_lengths": [10, 30],
                    "rejected_lengths": [20, 40],
                    "head_weights": [[1.0, 0.0], [2.0, 2.0]],
                    "valid": [True, True],
                },
                {"length_weight": 0.5, "orthogonality_weight": 0.1},
                # 0.693147 + 0.5 * 0.447214 + 0.1 * 0.707107
                [0.987465, 0.987465],
            ),
        ),
        hyper={"length_weight": 0.7, "orthogonality_weight": 0.4},
        out_of_range=(("length_weight", -0.1, "[0, inf)"), ("orthogonality_weight", -0.1, "[0, inf)")),
        hidden={name: _padding for name in HEADS},
        batch_wide=True,
        shared=("head_weights",),
    ),
    Row(
        "general_preference_model",
        lambda rng: heads(rng, 4),
        HEADS,
        # 1 * 4 - 2 * 3 = -2, less 0.5, over 5: softplus(0.5)
        hand=(({HEADS[0]: [[1.0, 2.0]], HEADS[1]: [[3.0, 4.0]]}, {"temperature": 5.0, "target_gap": 0.5}, [0.974077]),),
        hyper={"temperature": 0.8, "target_gap": 0.2},
        out_of_range=(TEMPERATURE, TARGET),
    ),
    Row(
        "general_preference_model_scaled",
        lambda rng: with_prompt(rng, 6),
        (*HEADS, "prompt_head_rewards"),
        # blocks -2 and 1 * 1 - 0 = 1; gates (0, log 3): 2 * (1/4, 3/4); -1 + 1.5 = 0.5
        hand=(
            (
                {
                    HEADS[0]: [[1.0, 2.0, 1.0, 0.0, 9.0, 9.0]],
                    HEADS[1]: [[3.0, 4.0, 0.0, 1.0, 9.0, 9.0]],
                    "prompt_head_rewards": [[9.0, 9.0, 9.0, 9.0, 0.0, 1.098612]],
                },
                {"temperature": 1.0},
                [0.474077],
            ),
        ),
        hyper={"temperature": 0.8, "target_gap": 0.2, "gate_temperature": 1.3},
        out_of_range=(TEMPERATURE, TARGET, ("gate_temperature", 0.0, "(0, inf)")),
    ),
    Row(
        "armo_gate_loss",
        lambda rng: with_prompt(rng, 6),
        ("prompt_head_rewards",),
        # gaps (2, -2), gate (1/4, 3/4): 0.5 * (0.5 - 1.5) = -0.5: softplus(0.5)
        hand=(
            (
                {
                    HEADS[0]: [[3.0, 0.0, 9.0, 9.0]],
                    HEADS[1]: [[1.0, 2.0, 9.0, 9.0]],
                    "prompt_head_rewards": [[9.0, 9.0, 0.0, 2.197225]],
                },
                {"temperature": 2.0, "scale": 0.5},
                [0.974077],
            ),
        ),
        hyper={"temperature": 0.7, "scale": 1.2},
        out_of_range=(TEMPERATURE, ("scale", 0.0, "(0, inf)")),
    ),
)
