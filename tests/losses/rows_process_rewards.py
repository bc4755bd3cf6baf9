"""Rows of the contract suite for alignment.losses.process_rewards."""

import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask


def steps(rng):
    labels = rng.random((B, T))
    return {
        "token_head_scores": rng.normal(size=(B, T, 2)),
        "step_labels": labels,
        "step_mask": token_mask(rng, (B, T)),
    }


def values(rng):
    return {
        "token_scores": rng.normal(size=(B, T)),
        "step_labels": rng.random((B, T)),
        "step_mask": token_mask(rng, (B, T)),
        "correct": rng.random(B) < 0.5,
    }


def _no_step(inputs):
    return np.repeat(~inputs["step_mask"][..., None], 2, axis=-1)


HIDDEN = {"token_head_scores": _no_step, "step_labels": hidden_tokens("step_mask")}
# log-odds 1 and -1: labels 1 and 0.25; softplus(-1) = 0.313262, softplus(1) = 1.313262
STEPS = {
    "token_head_scores": [[[1.0, 2.0], [9.0, 9.0], [1.0, 0.0]]],
    "step_labels": [[1.0, np.nan, 0.25]],
    "step_mask": [[True, False, True]],
}

ROWS = (
    Row(
        "prm_step_loss",
        steps,
        ("token_head_scores",),
        # 0.25 * 1.313262 + 0.75 * 0.313262
        hand=((STEPS, {}, [[0.313262, 0.0, 0.563262]]),),
        hidden=HIDDEN,
        per="token",
    ),
    Row(
        "prm_last_step_loss",
        steps,
        ("token_head_scores",),
        hand=((STEPS, {}, [0.563262]),),
        hidden=HIDDEN,
    ),
    Row(
        "prm_value_loss",
        values,
        ("token_scores",),
        # targets 1 + 0.5 and 0.25 + 1: ((2 - 1.5)^2 + (1 - 1.25)^2) / 2
        hand=(
            (
                {
                    "token_scores": [[2.0, np.nan, 1.0]],
                    "step_labels": [[1.0, np.nan, 0.25]],
                    "step_mask": [[True, False, True]],
                    "correct": [True],
                },
                {"gamma": 0.5},
                [0.15625],
            ),
        ),
        hyper={"gamma": 0.7},
        out_of_range=(("gamma", -0.1, "[0, 1]"), ("gamma", 1.1, "[0, 1]")),
        hidden={"token_scores": hidden_tokens("step_mask"), "step_labels": hidden_tokens("step_mask")},
    ),
)
