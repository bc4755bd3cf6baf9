"""Rows of the contract suite for alignment.policy_gradients.consistency."""

import numpy as np
from contract import B, Row, T, token_mask

HIDDEN = {"rewards": lambda inputs: ~inputs["valid"]}
BLEND = (("k", -0.1, "[0, inf)"), ("b", -0.1, "[0, inf)"))


def _rows(rng):
    return {
        "rewards": rng.normal(size=B),
        "answers": np.array([4, 2, 6, 2, 4, 1, 8, 4]),
        "group_ids": np.array([7, 3, 7, 3, 7, 9, 9, 7]),
        "valid": np.array([True, True, True, True, False, True, True, True]),
    }


# Prompt 5 agrees with itself: H = 0. Prompt 2 is split in two: H = 1 bit.
TWO_PROMPTS = {
    "rewards": [1.0, 0.0, 1.0, 1.0, 9.0],
    "answers": [3, 8, 3, 3, 8],
    "group_ids": [5, 2, 5, 2, 5],
    "valid": [True, True, True, True, False],
}


def _surrogate(rng):
    return {
        "policy_token_logps": rng.normal(size=(B, T)),
        "behaviour_token_logps": rng.normal(size=(B, T)),
        "advantages": rng.normal(size=B),
        "global_advantages": rng.normal(size=B),
        "blend_weights": rng.random(B),
        "mask": token_mask(rng, (B, T)),
    }


def _hidden_tokens(inputs):
    return ~inputs["mask"]


ROWS = (
    Row(
        "copo_global_advantages",
        _rows,
        (),
        # R = 1 and, at lambda = 1/2, 1/2 * 1/2 = 1/4: half a difference of 3/4 over a std of 0.75/sqrt(2) is 0.707107
        hand=((TWO_PROMPTS, {"eps": 0.0}, [0.707107, -0.707107, 0.707107, -0.707107, 0.0]),),
        hyper={"entropy_coef": 0.7, "eps": 0.1},
        out_of_range=(("entropy_coef", 1.5, "[0, 1]"), ("eps", -0.1, "[0, inf)")),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "copo_blend_weights",
        _rows,
        (),
        hand=((TWO_PROMPTS, {"k": 5.0}, [0.006693, 0.5, 0.006693, 0.5, 0.0]),),  # s(-5) and s(0)
        hyper={"k": 0.7, "b": 0.4},
        out_of_range=BLEND,
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "copo_forced_blend_weights",
        _rows,
        (),
        hand=((TWO_PROMPTS, {}, [0.0, 0.5, 0.0, 0.5, 0.0]),),  # prompt 5: both rewards are the mean
        hyper={"k": 0.7, "b": 0.4},
        out_of_range=BLEND,
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "copo_nonzero_blend_weights",
        _rows,
        (),
        hand=((TWO_PROMPTS, {}, [0.006693, 0.0, 0.006693, 0.5, 0.0]),),
        hyper={"k": 0.7, "b": 0.4},
        out_of_range=BLEND,
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "copo_surrogate",
        _surrogate,
        ("policy_token_logps",),
        # ratio 2. Local A = 1: clipped to 1.2, loss -1.2. Global A = -1: loss 2, and 3 of the dual clip is not reached.
        # 0.25 * -1.2 + 0.75 * 2 = 1.2. Second token: ratio 8, global loss cut to 3: -0.3 + 2.25
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, -1.0, 5.0]],
                    "behaviour_token_logps": [[-1.6931472, -3.0794415, 0.0]],
                    "advantages": [1.0],
                    "global_advantages": [-1.0],
                    "blend_weights": [0.25],
                    "mask": [[True, True, False]],
                },
                {},
                [[1.2, 1.95, 0.0]],
            ),
        ),
        hyper={"eps_low": 0.5, "eps_high": 0.8},
        out_of_range=(
            ("eps_low", 1.5, "[0, 1]"),
            ("eps_high", -0.1, "[0, inf)"),
            ("dual_clip", 0.0, "(0, inf)"),
        ),
        hidden={"policy_token_logps": _hidden_tokens, "behaviour_token_logps": _hidden_tokens},
        per="token",
    ),
)
