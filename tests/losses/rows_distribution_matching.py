"""Rows of the contract suite for alignment.losses.distribution_matching."""

import numpy as np
from contract import NEGATIVE_BETA, ZERO_BETA, Row, hidden_responses, ranked_list

# For beta = 0.5, m = (0.25, -0.5, 0), log softmax(m) = (-0.811449, -1.561449, -1.061449), q = (0.444214, 0.209832,
# 0.345954). For a temperature of 0.5, log p = (-0.407606, -2.407606, -1.407606), p = (0.665241, 0.090031, 0.244728).
LIST = {
    "policy_responses_logps": [[-1.0, -2.0, -3.0, np.nan]],
    "reference_responses_logps": [[-1.5, -1.0, -3.0, np.inf]],
    "labels": [[1.0, 0.0, 0.5, 9.0]],
    "responses_mask": [[[True, True], [True, False], [True, False], [False, False]]],
}
COMMON = {
    "inputs": ranked_list,
    "trains": ("policy_responses_logps",),
    "hidden": {name: hidden_responses for name in LIST if name != "responses_mask"},
}

ROWS = (
    Row(
        "exo",
        # 0.444214 * -0.403843 + 0.209832 * 0.846157 + 0.345954 * 0.346157
        hand=((LIST, {}, [0.117912]), (LIST, {"beta_pi": 0.5, "beta_r": 0.5}, [0.117912])),
        hyper={"beta_pi": 0.3, "beta_r": 0.7},
        out_of_range=(("beta_pi", -0.1, "(0, inf)"), ("beta_pi", 0.0, "(0, inf)"), ("beta_r", 0.0, "(0, inf)")),
        **COMMON,
    ),
    Row(
        "infonca",
        # 0.665241 * 0.811449 + 0.090031 * 1.561449 + 0.244728 * 1.061449
        hand=((LIST, {"beta": 0.5, "alpha": 0.5}, [0.940154]),),
        hyper={"beta": 0.3, "alpha": 0.7},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, ("alpha", 0.0, "(0, inf)")),
        **COMMON,
    ),
    Row(
        "nca",
        # 0.665241 * 0.575939 + 0.090031 * 0.974077 + 0.244728 * 0.693147 + (0.825939 + 0.474077 + 0.693147) / 3
        hand=((LIST, {"beta": 0.5, "alpha": 0.5}, [1.304856]),),
        hyper={"beta": 0.3, "alpha": 0.7},
        out_of_range=(NEGATIVE_BETA, ZERO_BETA, ("alpha", 0.0, "(0, inf)")),
        **COMMON,
    ),
)
