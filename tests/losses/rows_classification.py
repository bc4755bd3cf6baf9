"""Rows of the contract suite for alignment.losses.classification."""

import numpy as np
from contract import B, Row, T, hidden_tokens, token_mask


def _answers(rng):
    logps = {f"policy_{s}_token_logps": -rng.gamma(1.0, size=(B, T)) for s in ("chosen", "rejected")}
    return {**logps, **{f"{s}_mask": token_mask(rng, (B, T)) for s in ("chosen", "rejected")}}


def _replaced(rng):
    masks = {"trained_mask": rng.random((B, T)) < 0.3, "mask": token_mask(rng, (B, T))}
    return {"token_scores": rng.normal(size=(B, T)), **masks}


def _labelled(rng):
    labels = (rng.random((B, T)) < 0.3).astype(float)
    return {"token_scores": rng.normal(size=(B, T)), "step_labels": labels, "step_mask": token_mask(rng, (B, T))}


def _set(rng):
    return {**_labelled(rng), "valid": np.array([True] * 6 + [False, True])}


# p = 1/2 for one token of each label
LABELLED = {
    "token_scores": [[0.0, np.nan, 0.0]],
    "step_labels": [[1.0, np.nan, 0.0]],
    "step_mask": [[True, False, True]],
}
SET = {**LABELLED, "valid": [True]}
SMOOTHING = ("smoothing", -0.1, "[0, inf)")
COMMON = {
    "trains": ("token_scores",),
    "hidden": {name: hidden_tokens("step_mask") for name in ("token_scores", "step_labels")},
    "per": "token",
    "extremes": {"step_labels": (0.0, 1.0)},
}
OF_SETS = COMMON | {"inputs": _set, "batch_wide": True}

ROWS = (
    Row(
        "meta_tuning",
        _answers,
        tuple(f"policy_{s}_token_logps" for s in ("chosen", "rejected")),
        # the first tokens of the answers are 1 apart: softplus(-1)
        hand=(
            (
                {
                    "policy_chosen_token_logps": [[np.nan, -1.0, -5.0]],
                    "policy_rejected_token_logps": [[-2.0, -7.0, np.nan]],
                    "chosen_mask": [[False, True, True]],
                    "rejected_mask": [[True, True, False]],
                },
                {},
                [0.313262],
            ),
        ),
        hidden={f"policy_{s}_token_logps": hidden_tokens(f"{s}_mask") for s in ("chosen", "rejected")},
    ),
    Row(
        "rts",
        _replaced,
        ("token_scores",),
        hand=(
            (
                {
                    "token_scores": [[1.0, 1.0, np.nan]],
                    "trained_mask": [[True, False, True]],
                    "mask": [[True, True, False]],
                },
                {},
                [[0.313262, 1.313262, 0.0]],
            ),
        ),
        hidden={"token_scores": hidden_tokens("mask")},
        per="token",
    ),
    # 1 - (2/2 + 1) / (1/4 + 1/4 + 1 + 1)
    Row("dice_loss", hand=((SET, {}, [[0.2, 0.0, 0.2]]),), hyper={"smoothing": 0.5}, out_of_range=(SMOOTHING,),
        **OF_SETS),
    Row(
        "self_adjusting_dice_loss",
        # q = 1/4: 1 - (2/4 + 1) / (1/2 + 1 + 1)
        hand=((SET, {}, [[0.4, 0.0, 0.4]]),),
        hyper={"smoothing": 0.5, "alpha": 0.7},
        out_of_range=(SMOOTHING, ("alpha", -0.1, "[0, inf)")),
        **OF_SETS,
    ),
    Row(
        "tversky_loss",
        # 1 - (1/2 + 1) / (1/2 + 1/2 * 1/2 + 1/2 + 1)
        hand=((SET, {"false_negatives": 1.0}, [[1 / 3, 0.0, 1 / 3]]),),
        hyper={"smoothing": 0.5, "false_positives": 0.3, "false_negatives": 0.8},
        out_of_range=(SMOOTHING, *((f"false_{x}", -0.1, "[0, inf)") for x in ("positives", "negatives"))),
        **OF_SETS,
    ),
    Row(
        "self_adjusting_dice_loss_per_token",
        _labelled,
        # q = 1/4: 1 - (2/4 + 1) / (1/4 + 1 + 1) and 1 - 1 / (1/4 + 1)
        hand=((LABELLED, {}, [[1 / 3, 0.0, 0.2]]),),
        hyper={"smoothing": 0.5, "alpha": 0.7},
        out_of_range=(SMOOTHING, ("alpha", -0.1, "[0, inf)")),
        **COMMON,
    ),
    Row(
        "focal_tagging_loss",
        _labelled,
        # log 2 / 4
        hand=((LABELLED, {}, [[0.173287, 0.0, 0.173287]]),),
        hyper={"gamma": 1.5},
        out_of_range=(("gamma", -0.1, "[0, inf)"),),
        **COMMON,
    ),
)  # fmt: skip
