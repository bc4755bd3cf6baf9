"""Rows of the contract suite for alignment.policy_gradients.length_trackers."""

import jax.numpy as jnp
import numpy as np
from contract import B, Row

from alignment import policy_gradients
from alignment.policy_gradients.length_trackers import HapoState

WEIGHT = (("weight", 1.5, "[0, 1]"), ("floor", -1.0, "(-1, 1)"))
TOLERANCE = (("tolerance", -0.1, "[0, inf)"),)


def _on(name):
    method = getattr(policy_gradients, name)

    def loss(*arrays, **hyper):
        state = HapoState(arrays[-1], jnp.ones_like(arrays[-1]))
        return method.loss(*arrays[:-1], state, **{"num_prompts": 3, **hyper})[0]

    return loss


def _lengths(rng):
    return {
        "lengths": rng.integers(1, 9, B),
        "correct": rng.random(B) < 0.5,
        "histories": np.where(rng.random(B) < 0.8, rng.gamma(3.0, size=B), 0.0),
    }


def _rows(rng):
    return {
        "lengths": rng.integers(1, 9, B),
        "correct": rng.random(B) < 0.5,
        "prompt_ids": np.array([0, 1, 2, 1, 0, 0, 2, 2]),
        "valid": np.array([True, True, True, True, False, True, True, True]),
        "state": np.array([4.0, 0.0, 3.0]),
    }


# h = 4: L = 2 is worth cos(pi/4) = 0.707107, L = 4 nothing, L = 8 -1 (cut to -0.7 if correct); a prompt without an h.
LENGTHS = {"lengths": [2, 2, 4, 8, 8, 8], "correct": [True, False, True, True, False, False]}
COSINE = np.array([0.707107, 0.0, 0.0, -0.7, -1.0, 0.0])
# 1 - 1/2, nothing, nothing; 1 + 0.1 - 2 = -0.9
LINEAR = np.array([0.5, 0.0, 0.0, -0.7, -0.9, 0.0])
HISTORIES = {"histories": [4.0, 4.0, 4.0, 4.0, 4.0, 0.0]}
PROMPTS = {"prompt_ids": [0, 0, 0, 0, 0, 1], "valid": [True] * 6, "state": [4.0, 0.0, 9.0]}
CORRECT = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])


def _stateful(name, expected, hyper, out_of_range):
    return Row(
        name,
        _rows,
        (),
        hand=(({**LENGTHS, **PROMPTS}, {}, CORRECT + expected),),
        hyper=hyper,
        out_of_range=(*out_of_range, ("num_prompts", 0, "[1, inf)")),
        shared=("state",),
        loss=_on(name),
    )


ROWS = (
    Row(
        "hapo_length_rewards",
        _lengths,
        (),
        hand=(({**LENGTHS, **HISTORIES}, {}, COSINE), ({**LENGTHS, **HISTORIES}, {"weight": 0.5}, COSINE / 2)),
        hyper={"weight": 0.7, "floor": -0.4},
        out_of_range=WEIGHT,
    ),
    Row(
        "hapo_linear_length_rewards",
        _lengths,
        (),
        hand=(({**LENGTHS, **HISTORIES}, {}, LINEAR),),
        hyper={"weight": 0.7, "floor": -0.4},
        out_of_range=(*WEIGHT, *TOLERANCE),
    ),
    _stateful("hapo", COSINE, {"weight": 0.7}, WEIGHT),
    _stateful("hapo_mean", COSINE, {"weight": 0.7}, WEIGHT),
    _stateful("hapo_linear", LINEAR, {"weight": 0.7}, (*WEIGHT, *TOLERANCE)),
)
