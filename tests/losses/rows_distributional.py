"""Rows of the contract suite for alignment.losses.distributional."""

import numpy as np
from contract import NEGATIVE_BETA, POLICY, SMOOTHING, ZERO_BETA, B, Row, pair


def batch(rng):
    return {**pair(rng), "valid": np.arange(B) % 4 != 2}


def padding(inputs):
    return ~inputs["valid"]


# Two pairs and a row of padding. Margins: u = (1, -1), v = (-0.5, 1). Log-ratios: chosen (0.5, -2), rejected (-1, 0).
BATCH = {
    "policy_chosen_logps": [-1.0, -3.0, np.nan],
    "policy_rejected_logps": [-2.0, -2.0, np.inf],
    "reference_chosen_logps": [-1.5, -1.0, np.nan],
    "reference_rejected_logps": [-1.0, -2.0, -np.inf],
    "valid": [True, True, False],
}
COMMON = {
    "inputs": batch,
    "trains": POLICY,
    "hyper": {"beta": 0.3, "label_smoothing": 0.2},
    "out_of_range": (NEGATIVE_BETA, ZERO_BETA, *SMOOTHING),
    "hidden": {name: padding for name in BATCH if name != "valid"},
    "batch_wide": True,
}

ROWS = (
    Row(
        "aot_paired",
        # 1 stands above -1, and 1 above -0.5: log 2 for the first, softplus(0.5 * 0.5) for the second
        hand=(
            (BATCH, {"beta": 0.5}, [0.693147, 0.825939, 0.0]),
            (BATCH, {"beta": 0.5, "label_smoothing": 0.25}, [0.693147, 0.763439, 0.0]),  # less 0.25 * 0.25
        ),
        **COMMON,
    ),
    Row(
        "aot_unpaired",
        # 0.5 against 0, and -2 against -1: softplus(-0.25), softplus(0.5)
        hand=((BATCH, {"beta": 0.5}, [0.575939, 0.974077, 0.0]),),
        **COMMON,
    ),
)
