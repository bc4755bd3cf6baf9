"""Rows of the contract suite for alignment.policy_gradients.discriminative."""

import numpy as np
from contract import B, Row, T, token_mask

POLICY = ("policy_token_logps",)


def _logps(rng, *names):
    return {name: 0.5 * rng.normal(size=(B, T)) for name in names}


def _groups(rng):
    return {
        "correct": np.array([True, False, False, True, True, False, True, False]),
        "group_ids": np.array([7, 3, 7, 3, 7, 9, 9, 7]),
    }


def _masks(rng):
    return {
        "mask": token_mask(rng, (B, T)),
        "valid": np.array([True, True, True, True, False, True, True, True]),
    }


def _log_likelihood(rng):
    return {**_logps(rng, "policy_token_logps"), **_groups(rng), **_masks(rng)}


def _likelihood_ratio(rng):
    return {**_logps(rng, "policy_token_logps", "behaviour_token_logps"), **_groups(rng), **_masks(rng)}


def _hidden_tokens(inputs):
    return ~inputs["mask"] | ~inputs["valid"][:, None]


HIDDEN = {"policy_token_logps": _hidden_tokens}
HIDDEN_BOTH = {**HIDDEN, "behaviour_token_logps": _hidden_tokens}
TAU = (("tau", 0.0, "(0, inf)"), ("tau", -1.0, "(0, inf)"))
# Prompt 5: one correct with s = -1, two wrong with -2 and -4. Prompt 2 has no wrong one. 4 rows of 2 prompts: scale 2.
GROUPS = {"correct": [True, False, False, True], "group_ids": [5, 5, 5, 2]}
MASKS = {"mask": [[True, True], [True, False], [True, True], [True, True]], "valid": [True] * 4}
LOGPS = {"policy_token_logps": [[-0.5, -1.5], [-2.0, 9.0], [-5.0, -3.0], [-1.0, -1.0]]}
# The same scores as ratios exp(policy - behaviour), all of them 1 but prompt 5's correct one, (1 + 2) / 2, and its
# second wrong one, 3.
RATIOS = {
    "policy_token_logps": [[-1.0, -1.0], [-2.0, 9.0], [-1.0, -1.0], [-1.0, -1.0]],
    "behaviour_token_logps": [[-1.0, -1.6931472], [-2.0, 0.0], [-2.0986123, -2.0986123], [-1.0, -1.0]],
}

ROWS = (
    Row(
        "disco_b_log_likelihood",
        _log_likelihood,
        POLICY,
        # 2 * 1 / 1; 2 * the wrong ones' mean -3 / 2 each
        hand=(({**LOGPS, **GROUPS, **MASKS}, {}, [2.0, -3.0, -3.0, 0.0]),),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "disco_b_likelihood_ratio",
        _likelihood_ratio,
        POLICY,
        hand=(({**RATIOS, **GROUPS, **MASKS}, {}, [-3.0, 2.0, 2.0, 0.0]),),  # wrong ones: mean (1 + 3) / 2
        hidden=HIDDEN_BOTH,
        batch_wide=True,
    ),
    Row(
        "disco_log_likelihood",
        _log_likelihood,
        POLICY,
        # tau = 2: 2 log((e^-1 + e^-2) / 2) = 2 log(0.2516074) = -2.759771
        hand=(({**LOGPS, **GROUPS, **MASKS}, {"tau": 2.0}, [2.0, -2.759771, -2.759771, 0.0]),),
        hyper={"tau": 0.7},
        out_of_range=TAU,
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "disco_likelihood_ratio",
        _likelihood_ratio,
        POLICY,
        # log((e + e^3) / 2) = log(11.401909) = 2.433781
        hand=(({**RATIOS, **GROUPS, **MASKS}, {}, [-3.0, 2.433781, 2.433781, 0.0]),),
        hyper={"tau": 0.7},
        out_of_range=TAU,
        hidden=HIDDEN_BOTH,
        batch_wide=True,
    ),
    Row(
        "disco_trust_region",
        lambda rng: {
            "policy_token_logps": rng.normal(size=(B, T)) - 1.0,
            "behaviour_token_logps": rng.normal(size=(B, T)),
            **_masks(rng),
        },
        POLICY,
        # KL = (0.5 + 0.1) / 2 = 0.3; (0.3 - 0.1)^2 * 2 = 0.08
        hand=(
            (
                {
                    "policy_token_logps": [[-1.0, 7.0], [-1.0, -1.0]],
                    "behaviour_token_logps": [[-0.5, 7.0], [-0.9, -0.9]],
                    "mask": [[True, False], [True, False]],
                    "valid": [True, True],
                },
                {"delta": 0.1, "beta": 4.0},
                [0.08, 0.08],
            ),
        ),
        hyper={"delta": 0.1, "beta": 0.7},
        out_of_range=(("delta", -0.1, "[0, inf)"), ("beta", -0.1, "[0, inf)")),
        hidden=HIDDEN_BOTH,
        batch_wide=True,
    ),
)
