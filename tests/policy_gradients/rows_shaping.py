"""Rows of the contract suite for alignment.policy_gradients.shaping."""

import jax.numpy as jnp
from contract import B, Row, T, hidden_tokens, token_mask

from alignment.policy_gradients import dynamic_sampling_filter


def _kl(rng):
    return {
        "rewards": rng.normal(size=B),
        "behaviour_token_logps": rng.normal(size=(B, T)),
        "reference_token_logps": rng.normal(size=(B, T)),
        "mask": token_mask(rng, (B, T)),
    }


def _spans(rng):
    labels = rng.integers(-1, 2, (B, T)).astype(float)
    return {"span_labels": labels, **{name: array for name, array in _kl(rng).items() if name != "rewards"}}


def _kept(*arrays, **hyper):
    """The filter's bools as numbers, which is what the suite compares."""
    return dynamic_sampling_filter(*arrays, **hyper).astype(jnp.float32)


ROWS = (
    Row(
        "terminal_rewards",
        lambda rng: {"rewards": rng.normal(size=B), "mask": token_mask(rng, (B, T))},
        (),
        hand=(
            (
                {"rewards": [2.0, 5.0, 3.0], "mask": [[True, True, False], [False] * 3, [True, False, True]]},
                {},
                [[0.0, 2.0, 0.0], [0.0] * 3, [0.0, 0.0, 3.0]],
            ),
        ),
        per="token",
    ),
    Row(
        "span_shaped_rewards",
        _spans,
        (),
        # k1 is 0.5 and -1.
        hand=(
            (
                {
                    "span_labels": [[1.0, -1.0, 9.0]],
                    "behaviour_token_logps": [[-1.0, -2.0, 9.0]],
                    "reference_token_logps": [[-1.5, -1.0, 9.0]],
                    "mask": [[True, True, False]],
                },
                {"beta": 0.5},
                [[0.75, -0.5, 0.0]],
            ),
        ),
        out_of_range=(("beta", -0.1, "[0, inf)"),),
        hidden=dict.fromkeys(("span_labels", "behaviour_token_logps", "reference_token_logps"), hidden_tokens("mask")),
        per="token",
    ),
    Row(
        "return_improvements",
        lambda rng: {"returns": rng.normal(size=B), "next_returns": rng.normal(size=B)},
        (),
        hand=(({"returns": [0.0, 0.5, 0.25], "next_returns": [0.5, 0.25, 1.0]}, {}, [0.5, -0.25, 0.75]),),
    ),
    Row(
        "kl_shaped_rewards",
        _kl,
        (),
        # k1 is 0.5 and -1.
        hand=(
            (
                {
                    "rewards": [2.0],
                    "behaviour_token_logps": [[-1.0, -2.0, 9.0]],
                    "reference_token_logps": [[-1.5, -1.0, 9.0]],
                    "mask": [[True, True, False]],
                },
                {"beta": 0.5},
                [[-0.25, 2.5, 0.0]],
            ),
        ),
        out_of_range=(("beta", -0.1, "[0, inf)"),),
        hidden=dict.fromkeys(("behaviour_token_logps", "reference_token_logps"), hidden_tokens("mask")),
        per="token",
    ),
    Row(
        "kl_penalized_rewards",
        lambda rng: {name: rng.normal(size=B) for name in ("rewards", "behaviour_logps", "reference_logps")},
        (),
        hand=(({"rewards": [2.0], "behaviour_logps": [-3.0], "reference_logps": [-4.0]}, {"beta": 0.5}, [1.5]),),
        out_of_range=(("beta", -0.1, "[0, inf)"),),
    ),
    Row(
        "clip_rewards",
        lambda rng: {"rewards": rng.normal(size=B), "valid": rng.random(B) < 0.5},
        (),
        hand=(({"rewards": [12.0, -1.0, 3.0], "valid": [True, True, False]}, {}, [10.0, -1.0, 0.0]),),
        out_of_range=(("limit", 0.0, "(0, inf]"),),
        hidden={"rewards": lambda inputs: ~inputs["valid"]},
    ),
    Row(
        "overlong_shaping",
        lambda rng: {"rewards": rng.normal(size=B), "lengths": rng.integers(1, 30_000, B)},
        (),
        hand=(
            (
                {"rewards": [1.0] * 4, "lengths": [4, 6, 8, 9]},
                {"max_length": 8, "cache_length": 4},
                [1.0, 0.5, 0.0, 0.0],
            ),
        ),
        out_of_range=(
            ("max_length", 0, "[1, inf)"),
            ("cache_length", 0, "[1, inf)"),
            ("cache_length", 30_000, "[1, 20480]"),
        ),
    ),
    Row(
        "dynamic_sampling_filter",
        lambda rng: {
            "correct": rng.random(B) < 0.5,
            "group_ids": rng.integers(0, 3, B),
            "valid": rng.random(B) < 0.7,
        },
        (),
        hand=(
            (
                {
                    "correct": [True, False, True, True, False],
                    "group_ids": [0, 0, 1, 1, 1],
                    "valid": [True, True, True, True, False],
                },
                {},
                [1.0, 1.0, 0.0, 0.0, 0.0],
            ),
        ),
        loss=_kept,
        batch_wide=True,
    ),
)
