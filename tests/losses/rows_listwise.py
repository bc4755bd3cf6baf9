"""Rows of the contract suite for alignment.losses.listwise."""

import numpy as np
from contract import NEGATIVE_BETA, B, K, Row, T, hidden_responses, ranked_list

POLICY = ("policy_responses_logps",)
# Scores 0.25, -0.5 and 0 for beta = 0.5, labelled first, third, second; the fourth response is not there.
LIST = {
    "policy_responses_logps": [[-1.0, -2.0, -3.0, np.nan]],
    "reference_responses_logps": [[-1.5, -1.0, -3.0, np.inf]],
    "labels": [[1.0, 0.0, 0.5, 9.0]],
    "responses_mask": [[[True, True], [True, False], [True, False], [False, False]]],
}
HIDDEN = {name: hidden_responses for name in ("policy_responses_logps", "reference_responses_logps", "labels")}
LIPO = {
    "inputs": ranked_list,
    "trains": POLICY,
    "hyper": {"beta": 0.3},
    "out_of_range": (NEGATIVE_BETA,),
    "hidden": HIDDEN,
}


def without_reference(rng):
    return {name: value for name, value in ranked_list(rng).items() if name != "reference_responses_logps"}


def token_list(rng):
    ranked = ranked_list(rng)
    logps = {"policy_responses_token_logps": -1.5 + 0.7 * rng.normal(size=(B, K, T))}
    return logps | {name: ranked[name] for name in ("labels", "responses_mask")}


# First tokens -1, -2 and -1.5, labelled first, second and third; the fourth response is not there.
FIRST = {
    "policy_responses_token_logps": [[[-1.0, -2.0], [-2.0, np.nan], [-1.5, np.nan], [np.nan, np.nan]]],
    "labels": [[3.0, 2.0, 1.0, 9.0]],
    "responses_mask": [[[True, True], [True, False], [True, False], [False, False]]],
}
TIED = {
    "policy_responses_token_logps": [[[-1.0], [-1.0], [-3.0]]],
    "labels": [[2.0, 1.0, 1.0]],
    "responses_mask": [[[True], [True], [False]]],
}
OF_FIRST = {
    "inputs": token_list,
    "trains": ("policy_responses_token_logps",),
    "hidden": {
        "policy_responses_token_logps": lambda inputs: ~inputs["responses_mask"],
        "labels": hidden_responses,
    },
}

ROWS = (
    Row(
        "first_ranknet",
        # softplus(-1) / 3 + softplus(-0.5) / 4 + softplus(0.5) / 5 over three pairs; log 2 / 3
        hand=(
            (FIRST, {}, [(0.313262 / 3 + 0.474077 / 4 + 0.974077 / 5) / 3]),
            (TIED, {}, [0.231049]),
        ),
        **OF_FIRST,
    ),
    Row("first_lm", hand=((FIRST, {}, [1.5]), (TIED, {}, [1.0])), **OF_FIRST),
    Row(
        "lipo_lambda",
        # scores 0.25 and -0.5, ranks 1 and 2: (1 / log 2 - 1 / log 3) * (2 - 1) * 0.386871; the third is not there
        hand=(
            (
                {
                    "policy_responses_logps": [[-1.0, -2.0, np.nan]],
                    "reference_responses_logps": [[-1.5, -1.0, np.inf]],
                    "labels": [[1.0, 0.0, 9.0]],
                    "responses_mask": [[[True, True], [True, False], [False, False]]],
                },
                {"beta": 0.5},
                [0.205992],
            ),
        ),
        **LIPO,
    ),
    Row(
        "lipo_pointwise_mse",
        hand=((LIST, {"beta": 0.5}, [1.0625]),),  # 0.75^2 + 0.5^2 + 0.5^2
        **LIPO,
    ),
    Row(
        "lipo_pointwise_sigmoid",
        hand=((LIST, {"beta": 0.5}, [1.743164]),),  # softplus(-0.25) + softplus(-0.5) + log 2
        **LIPO,
    ),
    Row(
        "lipo_pairwise_hinge",
        hand=((LIST, {"beta": 0.5}, [1.5]),),  # leads of 0.75, 0.25 and 0.5: short of 1 by 0.25, 0.75 and 0.5
        **LIPO,
    ),
    Row(
        "lipo_pairwise_logistic",
        hand=((LIST, {"beta": 0.5}, [1.436887]),),  # softplus of -0.75, -0.25 and -0.5
        **LIPO,
    ),
    Row(
        "cpl_list",
        without_reference,
        POLICY,
        # advantages -0.5, -1 and -1.5, labelled first, third, second; a third of softplus(-0.25) + log 2 + softplus(1)
        hand=(
            (
                {name: value for name, value in LIST.items() if name != "reference_responses_logps"},
                {"alpha": 0.5, "contrastive_bias": 0.5},
                [0.860783],
            ),
        ),
        hyper={"alpha": 0.3, "contrastive_bias": 0.7},
        out_of_range=(
            ("alpha", 0.0, "(0, inf)"),
            ("contrastive_bias", 0.0, "(0, 1]"),
            ("contrastive_bias", 1.5, "(0, 1]"),
        ),
        hidden={name: hidden_responses for name in ("policy_responses_logps", "labels")},
    ),
    Row(
        "lipo_list_mle",
        # first of three, log(1 + e^-0.25 + e^-0.75) = 0.811449; then second of two, softplus(-0.5)
        hand=((LIST, {"beta": 0.5}, [1.285526]),),
        **LIPO,
    ),
    Row(
        "lipo_softmax",
        hand=((LIST, {"beta": 0.5}, [0.894782]),),  # 2/3 * 0.811449 + 1/3 * 1.061449
        **LIPO,
    ),
    Row(
        "rrhf_list",
        without_reference,
        POLICY,
        # means -0.5, -2 and -3: the third should be a nat ahead of the second and is one behind; 0.5 * 1 for the best
        hand=(
            (
                {name: value for name, value in LIST.items() if name != "reference_responses_logps"},
                {"lambda_": 0.5},
                [1.5],
            ),
        ),
        hyper={"lambda_": 0.4},
        out_of_range=(("lambda_", -0.1, "[0, inf)"),),
        hidden={name: hidden_responses for name in ("policy_responses_logps", "labels")},
    ),
)
