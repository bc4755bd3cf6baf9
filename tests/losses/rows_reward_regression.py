"""Rows of the contract suite for alignment.losses.reward_regression."""

import numpy as np
from contract import B, Row, T


def ratings(rng, heads=1):
    rated = rng.random((B, T)) < 0.7
    return {"head_rewards": rng.normal(size=(B, T * heads)), "ratings": rng.normal(size=(B, T)), "rated": rated}


def _missing(heads):
    return lambda inputs: np.repeat(~inputs["rated"], heads, axis=-1)


def _targets(rng):
    return {"head_rewards": rng.normal(size=(B, 6)), "rewards": rng.normal(size=B)}


GONE = [[True, False]]

ROWS = (
    Row(
        "multi_label_reward_regression",
        ratings,
        ("head_rewards",),
        hand=(({"head_rewards": [[1.0, 2.0]], "ratings": [[3.0, 9.0]], "rated": GONE}, {}, [[4.0, 0.0]]),),
        hidden={"head_rewards": _missing(1), "ratings": _missing(1)},
        per="token",
    ),
    Row(
        "quantile_rm",
        lambda rng: ratings(rng, 3),
        ("head_rewards",),
        # levels 1/3 and 2/3, u = 2 and -1: (2/3 + 1/3) / 2
        hand=(
            (
                {"head_rewards": [[1.0, 4.0, 7.0, 7.0]], "ratings": [[3.0, 9.0]], "rated": GONE},
                {"num_quantiles": 2},
                [[0.5, 0.0]],
            ),
        ),
        hyper={"num_quantiles": 3},
        out_of_range=(("num_quantiles", 0, "[1, inf)"),),
        hidden={"head_rewards": _missing(3), "ratings": _missing(1)},
        per="token",
    ),
    Row(
        "brme_loss",
        lambda rng: {**_targets(rng), "random_bits": rng.integers(0, 1000, B)},
        ("head_rewards",),
        # softplus(-100) is nothing, so neither is the noise: ((1 - 3)^2 + (2 - 3)^2) / 2
        hand=(({"head_rewards": [[1.0, 2.0, -100.0, -100.0]], "rewards": [3.0], "random_bits": [5]}, {}, [2.5]),),
    ),
    Row(
        "brme_nll",
        _targets,
        ("head_rewards",),
        # softplus(0.541325) = log(1 + e - 1) = 1, so sigma is 2: log 2 + (2/2)^2 / 2
        hand=(({"head_rewards": [[1.0, 0.541325]], "rewards": [3.0]}, {"min_std": 1.0}, [1.193147]),),
        hyper={"min_std": 0.2},
        out_of_range=(("min_std", 0.0, "(0, inf)"),),
    ),
    Row(
        "classifier_reward_loss",
        lambda rng: {"head_rewards": rng.normal(size=(B, 2)), "desirable": rng.random(B) < 0.5},
        ("head_rewards",),
        # log-odds 1: softplus(-1), softplus(1)
        hand=(({"head_rewards": [[1.0, 2.0], [1.0, 2.0]], "desirable": [True, False]}, {}, [0.313262, 1.313262]),),
    ),
)
