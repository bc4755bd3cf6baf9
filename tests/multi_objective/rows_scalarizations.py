"""Rows of the contract suite for alignment.multi_objective.scalarizations."""

import numpy as np
from contract import B, Row

from alignment.multi_objective import tchebycheff_running_ideal
from alignment.multi_objective.scalarizations import IdealState

VALID = np.array([True, True, True, True, False, True, True, True])
HIDDEN = {"objective_rewards": lambda inputs: ~inputs["valid"][:, None]}
TWO = {"objective_rewards": [[1.0, 3.0], [2.0, 2.0], [9.0, 9.0]], "valid": [True, True, False]}
WEIGHTS = {"weights": (0.25, 0.75)}


def _rewards(rng):
    return {"objective_rewards": rng.normal(size=(B, 2)), "valid": VALID}


def _running(objective_rewards, valid, state, **hyper):
    return tchebycheff_running_ideal.loss(objective_rewards, valid, IdealState(state), **hyper)[0]


ROWS = (
    Row("linear_scalarization", _rewards, (), hand=((TWO, WEIGHTS, [2.5, 2.0, 0.0]),), hidden=HIDDEN),
    Row(
        "standardized_linear_scalarization",
        _rewards,
        (),
        # 0.25 * 0 + 0.75 * 1, 0.25 * 1 + 0.75 / 2
        hand=((TWO, WEIGHTS | {"means": (1.0, 1.0), "deviations": (1.0, 2.0)}, [0.75, 0.625, 0.0]),),
        hyper={"means": (0.5, -1.0), "deviations": (2.0, 3.0)},
        hidden=HIDDEN,
    ),
    Row(
        "preference_scalarization",
        lambda rng: {
            "objective_rewards": rng.normal(size=(B, 2)),
            "preference_weights": rng.normal(size=(B, 2)),
            "valid": VALID,
        },
        (),
        hand=(
            (
                {
                    "objective_rewards": TWO["objective_rewards"],
                    "preference_weights": [[1.0, -1.0], [0.5, 0.5], [1.0, 1.0]],
                    "valid": TWO["valid"],
                },
                {},
                [-2.0, 2.0, 0.0],
            ),
        ),
        hidden=HIDDEN | {"preference_weights": HIDDEN["objective_rewards"]},
    ),
    Row(
        "tchebycheff_scalarization",
        _rewards,
        (),
        # gaps 0.5, 0 and 0.25, 0.75
        hand=((TWO, WEIGHTS | {"ideal": (3.0, 3.0)}, [-0.5, -0.75, 0.0]),),
        hidden=HIDDEN,
    ),
    Row(
        "smooth_tchebycheff_scalarization",
        _rewards,
        (),
        # -0.5 log(e^1 + e^0) and -0.5 log(e^0.5 + e^1.5)
        hand=((TWO, WEIGHTS | {"ideal": (3.0, 3.0), "mu": 0.5}, [-0.656631, -0.906631, 0.0]),),
        out_of_range=(("mu", 0.0, "(0, inf)"),),
        hidden=HIDDEN,
    ),
    Row(
        "tchebycheff_running_ideal",
        lambda rng: {**_rewards(rng), "state": rng.normal(size=2)},
        (),
        # the best are 2 and 3, of this batch; with the slack the gaps are 0.55, 0.05 and 0.05, 0.55
        hand=((TWO | {"state": [0.0, 1.0]}, {}, [-0.55, -0.55, 0.0]),),
        out_of_range=(("slack", -0.1, "[0, inf)"),),
        hidden=HIDDEN,
        shared=("state",),
        loss=_running,
        batch_wide=True,
    ),
)
