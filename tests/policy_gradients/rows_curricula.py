"""Rows of the contract suite for alignment.policy_gradients.curricula."""

import numpy as np
from contract import B, Row, T

PROBABILITY = (0.0, 0.5, 1.0)
VALID = np.array([True, True, True, True, False, True, True, True])
D = 4


def _rates(rng):
    return {"success_rates": rng.random(B), "group_sizes": rng.integers(1, 9, B)}


def _not_valid(inputs):
    return ~inputs["valid"]


def _hidden_states(rng, *masks):
    parts = rng.integers(0, 3, (B, T))
    parts[:, :2] = (0, 1)
    drawn = {"question_mask": parts == 0, "context_mask": parts == 1}
    return {"hidden_states": rng.normal(size=(B, T, D)), **{name: drawn[name] for name in masks}}


def _unread(inputs):
    read = np.any([mask for name, mask in inputs.items() if name.endswith("mask")], axis=0)
    return np.broadcast_to(~read[..., None], (B, T, D))


# Question tokens along x and y, a context token along x (of length 2), and one of neither.
TOKENS = {"hidden_states": [[[3.0, 0.0], [0.0, 1.0], [2.0, 0.0], [9.0, 9.0]]]}
QUESTION = {"question_mask": [[True, True, False, False]]}
CONTEXT = {"context_mask": [[False, False, True, False]]}

ROWS = (
    Row(
        "mixed_group_probability",
        _rates,
        (),
        # 1 - 2/8; 1 - 1/16 - 9/16; one rollout; p = 0
        hand=(
            (
                {"success_rates": [0.5, 0.25, 0.3, 0.0], "group_sizes": [3, 2, 1, 5]},
                {},
                [0.75, 0.375, 0.0, 0.0],
            ),
        ),
        extremes={"success_rates": PROBABILITY},
    ),
    Row(
        "knapsack_information_gain",
        lambda rng: {"success_rates": rng.random(B), "valid": VALID},
        (),
        hand=(({"success_rates": [0.5, 0.25, 0.5], "valid": [True, True, False]}, {}, [0.125, 0.140625, 0.0]),),
        hidden={"success_rates": _not_valid},
        extremes={"success_rates": PROBABILITY},
    ),
    Row(
        "knapsack_value",
        _rates,
        (),
        hand=(({"success_rates": [0.5, 0.25], "group_sizes": [3, 2]}, {}, [0.09375, 0.052734]),),
        extremes={"success_rates": PROBABILITY},
    ),
    Row(
        "pcl_distances",
        lambda rng: {"prompt_values": rng.random(B), "valid": VALID},
        (),
        hand=(({"prompt_values": [0.25, 0.75, 0.0], "valid": [True, True, True]}, {"tau": 0.5}, [0.25, 0.25, 0.5]),),
        hyper={"tau": 0.4},
        out_of_range=(("tau", 1.5, "[0, 1]"),),
        hidden={"prompt_values": _not_valid},
    ),
    Row(
        "pcl_value_loss",
        lambda rng: {
            "prompt_values": rng.random(B),
            "rewards": rng.random(B),
            "group_ids": np.array([7, 3, 7, 3, 7, 9, 9, 7]),
            "valid": VALID,
        },
        ("prompt_values",),
        hand=(
            (
                {
                    "prompt_values": [0.75, 0.5, 0.75, 9.0],
                    "rewards": [1.0, 1.0, 0.0, 9.0],
                    "group_ids": [5, 2, 5, 5],
                    "valid": [True, True, True, False],
                },
                {},
                [0.0625, 0.25, 0.0625, 0.0],
            ),
        ),
        hidden={"prompt_values": _not_valid, "rewards": _not_valid},
        batch_wide=True,
    ),
    Row(
        "angle_concentration_within",
        lambda rng: _hidden_states(rng, "question_mask"),
        (),
        hand=(({**TOKENS, **QUESTION}, {}, [0.666667]),),  # cosines 1, 1 and 0 over three pairs
        hidden={"hidden_states": _unread},
    ),
    Row(
        "angle_concentration_between",
        lambda rng: _hidden_states(rng, "question_mask", "context_mask"),
        (),
        hand=(({**TOKENS, **QUESTION, **CONTEXT}, {}, [0.5]),),  # cosines 1 and 0
        hidden={"hidden_states": _unread},
    ),
    Row(
        "angle_concentration",
        lambda rng: _hidden_states(rng, "question_mask", "context_mask"),
        (),
        hand=(({**TOKENS, **QUESTION, **CONTEXT}, {"between_weight": 8.0}, [4.666667]),),
        hyper={"between_weight": 0.4},
        out_of_range=(("between_weight", -0.1, "[0, inf)"),),
        hidden={"hidden_states": _unread},
    ),
    Row(
        "gain_rl_sampling_weights",
        lambda rng: {"ranks": rng.permutation(B), "centers": rng.normal(size=B)},
        (),
        hand=(({"ranks": [3, 5], "centers": [3.0, 3.0]}, {"sigma": 2.0}, [1.0, 0.606531]),),
        hyper={"sigma": 3.0},
        out_of_range=(("sigma", 0.0, "(0, inf)"),),
    ),
    Row(
        "gain_rl_next_center",
        lambda rng: {name: rng.random(B) for name in ("centers", "accuracies", "concentrations")},
        (),
        # at the center of accuracy nothing, tanh(1) = 0.761594 for C = 1/2; tanh(-1) and nothing: never back
        hand=(
            (
                {"centers": [2.0, 2.0], "accuracies": [0.5, 0.0], "concentrations": [0.5, 0.0]},
                {"num_samples": 10},
                [5.807971, 2.0],
            ),
        ),
        hyper={"num_samples": 3},
        out_of_range=(
            ("num_samples", 0, "[1, inf)"),
            ("accuracy_slope", -0.1, "[0, inf)"),
            ("accuracy_center", float("inf"), "(-inf, inf)"),
            ("concentration_slope", -0.1, "[0, inf)"),
        ),
    ),
)
