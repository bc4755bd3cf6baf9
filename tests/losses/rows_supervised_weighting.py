"""Rows of the contract suite for alignment.losses.supervised_weighting."""

import jax.numpy as jnp
import numpy as np
from contract import NAN_BETA, NEGATIVE_BETA, ZERO_BETA, B, Row, T, hidden_tokens, token_mask


def _tokens(rng, *whose):
    logps = {f"{w}_token_logps": -rng.gamma(1.0, size=(B, T)) for w in whose}
    return {**logps, "mask": token_mask(rng, (B, T))}


def _weighted(rng):
    tokens = _tokens(rng, "policy")
    valid = np.array([True] * 6 + [False, True])
    return {"policy_token_logps": tokens["policy_token_logps"], "weights": rng.random(B) + 0.1,
            "mask": tokens["mask"], "valid": valid}  # fmt: skip


def _dft_pinned(inputs, hyper):
    weights = jnp.exp(inputs["policy_token_logps"])
    return lambda logps, mask: jnp.where(mask, -weights * logps, 0.0)


def _hidden_example(inputs):
    return ~(inputs["mask"] & inputs["valid"][:, None])


WEIGHTED = {
    "policy_token_logps": [[-1.0, -2.0], [-3.0, np.nan], [np.inf, 1.0]],
    "weights": [1.0, 0.5, np.nan],
    "mask": [[True, True], [True, False], [True, True]],
    "valid": [True, True, False],
}
WEIGHTS = {"extremes": {"weights": (0.0, 0.1, 10.0)}, "batch_wide": True}
WEIGHTS["hidden"] = {"policy_token_logps": _hidden_example, "weights": lambda inputs: ~inputs["valid"]}
# with beta = 0.5 the implicit rewards are 1 and -1.5
LOG_RATIOS = {
    "policy_token_logps": [[-1.0, -4.0, np.nan]],
    "reference_token_logps": [[-3.0, -1.0, np.inf]],
    "mask": [[True, True, False]],
}
RATIOS = {
    "inputs": lambda rng: _tokens(rng, "policy", "reference"),
    "trains": ("policy_token_logps",),
    "hyper": {"beta": 0.3},
    "out_of_range": (NEGATIVE_BETA, ZERO_BETA, NAN_BETA),
    "hidden": {f"{w}_token_logps": hidden_tokens("mask") for w in ("policy", "reference")},
    "per": "token",
}

ROWS = (
    Row(
        "dft",
        lambda rng: _tokens(rng, "policy"),
        ("policy_token_logps",),
        # exp(-0.5) * 0.5
        hand=(({"policy_token_logps": [[-0.5, -np.inf]], "mask": [[True, False]]}, {}, [[0.303265, 0.0]]),),
        hidden={"policy_token_logps": hidden_tokens("mask")},
        per="token",
        pinned=_dft_pinned,
    ),
    Row(
        "crlft",
        _weighted,
        ("policy_token_logps",),
        # three tokens of weights 1, 1 and 0.5: each loss times 3 / 2.5
        hand=((WEIGHTED, {}, [[1.2, 2.4], [1.8, 0.0], [0.0, 0.0]]),),
        per="token",
        **WEIGHTS,
    ),
    Row(
        "crlft_per_sequence",
        _weighted,
        ("policy_token_logps",),
        # means 1.5 and 3, weights 1 and 0.5, times 2 / 1.5
        hand=((WEIGHTED, {}, [2.0, 2.0, 0.0]),),
        **WEIGHTS,
    ),
    Row("fdiv_sft_total_variation", hand=((LOG_RATIOS, {"beta": 0.5}, [[-1.0, 1.5, 0.0]]),), **RATIOS),
    Row("fdiv_sft_pearson", hand=((LOG_RATIOS, {"beta": 0.5}, [[-0.75, 2.0625, 0.0]]),), **RATIOS),
    # the tangent at -0.9 has value -9 and slope 100: 9 + 100 * 0.6
    Row("fdiv_sft_hellinger", hand=((LOG_RATIOS, {"beta": 0.5}, [[-0.5, 69.0, 0.0]]),), **RATIOS),
)
