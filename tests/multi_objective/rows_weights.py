"""Rows of the contract suite for alignment.multi_objective.weights."""

import jax.numpy as jnp
import numpy as np
from contract import B, Row, T

from alignment.multi_objective import hv_guided_rewards
from alignment.multi_objective.weights import HypervolumeState

VALID = np.array([True, True, True, True, False, True, True, True])
HIDDEN = {"objective_rewards": lambda inputs: ~inputs["valid"][:, None]}
TWO = {"objective_rewards": [[1.0, 3.0], [2.0, 2.0], [9.0, 9.0]], "valid": [True, True, False]}
SIGNS = {
    "objective_advantages": [[1.0, 2.0], [-1.0, 3.0], [-2.0, -1.0], [5.0, 5.0]],
    "valid": [True, True, True, False],
}
META = (("base", 0.0, "(0, inf)"), ("scale", -0.1, "[0, inf)"))


def _rewards(rng):
    return {"objective_rewards": rng.normal(size=(B, 2)), "valid": VALID}


def _advantages(rng):
    return {"objective_advantages": rng.normal(size=(B, 2)), "valid": VALID}


def _guided(objective_rewards, valid, state, **hyper):
    assert state.shape == (2,)
    memory = HypervolumeState(jnp.zeros((4, 2)), jnp.zeros((), jnp.int32), state[0], jnp.zeros(2))
    return hv_guided_rewards.loss(objective_rewards, valid, memory, **hyper)[0]


ROWS = (
    Row(
        "hv_meta_reward",
        lambda rng: {"gain": np.asarray(rng.random())},
        (),
        # 0.5 + 1.5 * 0.462117
        hand=(({"gain": -1.0}, {}, 0.5), ({"gain": 0.0}, {}, 0.5), ({"gain": 0.5}, {}, 1.193176)),
        out_of_range=META,
        per="state",
        size=(),
        shared=("gain",),
    ),
    Row(
        "hv_guided_rewards",
        lambda rng: {**_rewards(rng), "state": rng.random(2)},
        (),
        hand=((TWO | {"state": [2.0, 0.0]}, {"weights": (0.25, 0.75)}, [5.0, 4.0, 0.0]),),
        out_of_range=META,
        hidden=HIDDEN,
        shared=("state",),
        loss=_guided,
    ),
    Row(
        "pama_advantages",
        _advantages,
        (),
        hand=((SIGNS, {}, [1.0, 0.0, 0.0, 0.0]),),
        hidden={"objective_advantages": lambda inputs: ~inputs["valid"][:, None]},
    ),
    Row(
        "pama_signed_advantages",
        _advantages,
        (),
        hand=((SIGNS, {}, [1.0, 0.0, -1.0, 0.0]),),
        hidden={"objective_advantages": lambda inputs: ~inputs["valid"][:, None]},
    ),
    Row(
        "maxmin_rewards",
        _rewards,
        (),
        # means 1.5 and 2.5
        hand=((TWO, {}, [1.0, 2.0, 0.0]),),
        hidden=HIDDEN,
        batch_wide=True,
    ),
    Row(
        "maxmin_assignments",
        lambda rng: {
            "margins": rng.normal(size=(B, T)),
            "annotator_ids": np.array([7, 3, 7, 3, 7, 9, 9, 7]),
            "valid": VALID,
        },
        (),
        # user 4: log s(1) + log s(0) = -1.006 against log s(0) + log s(2) = -0.820
        hand=(
            (
                {
                    "margins": [[1.0, 0.0], [0.0, 2.0], [5.0, 0.0]],
                    "annotator_ids": [4, 4, 7],
                    "valid": [True] * 3,
                },
                {},
                [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]],
            ),
        ),
        hidden={"margins": lambda inputs: ~inputs["valid"][:, None]},
        per="token",
        batch_wide=True,
    ),
)
