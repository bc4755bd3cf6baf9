"""Rows of the contract suite for alignment.policy_gradients.divergence_gradients."""

import numpy as np
from contract import B, Row

from alignment import policy_gradients
from alignment.policy_gradients.divergence_gradients import BaselineState

NAMES = ("policy_logps", "behaviour_logps", "target_logps", "log_partitions")
# log(p / q) = -1 + 0.5 + 2 = 1.5; the second has no probability under the target
DPG = dict(zip(NAMES, ([-3.0, -3.0], [-2.0, -2.0], [-1.0, -1e30], [-0.5, -0.5]), strict=True))
# pi / q = e^0.5 = 1.648721, log(p / pi) = -2 + 0.5 + 1 = -0.5, p / pi = 0.606531; the baseline is 0.25 and log pi -1,
# so the value is 1.648721 * (r - 0.25)
F_DPG = dict(zip(NAMES, ([-1.0], [-1.5], [-2.0], [-0.5]), strict=True)) | {"valid": [True], "state": [0.25, 3.0]}
PSEUDO_REWARDS = {
    "forward_kl": 0.606531,
    "reverse_kl": -1.5,
    "total_variation": -0.5,
    "jensen_shannon": 0.474077 - 0.693147,
    "chi_squared": 0.367879 - 1,
    "reverse_chi_squared": -2 * 0.648721,
}


def _inputs(rng):
    return {name: -5 + 0.5 * rng.normal(size=B) for name in NAMES}


def _weights_fixed(row_of):
    """The weight of log pi, which is held fixed, frozen at the inputs."""

    def pinned(inputs, hyper):
        weights = row_of(*inputs.values(), **hyper) / inputs["policy_logps"]
        return lambda policy_logps, *rest: weights * policy_logps

    return pinned


def _f_dpg(name, reward):
    def loss(policy_logps, behaviour_logps, target_logps, log_partitions, valid, state, **hyper):
        kernel, state = getattr(policy_gradients, f"f_dpg_{name}").loss, BaselineState(state[0], state[1])
        return kernel(policy_logps, behaviour_logps, target_logps, log_partitions, valid, state, **hyper)[0]

    return Row(
        f"f_dpg_{name}",
        lambda rng: _inputs(rng) | {"valid": rng.random(B) < 0.7, "state": np.array([0.3, 5.0])},
        ("policy_logps",),
        hand=((F_DPG, {}, [1.648721 * (reward - 0.25)]),),
        out_of_range=(("window", 0, "[1, inf)"),),
        shared=("state",),
        any_length=("state",),
        loss=loss,
        pinned=_weights_fixed(loss),
    )


ROWS = (
    Row(
        "dpg",
        _inputs,
        ("policy_logps",),
        hand=((DPG, {}, [3 * 4.481689, 0.0]),),
        pinned=_weights_fixed(policy_gradients.dpg),
    ),
    *(_f_dpg(name, reward) for name, reward in PSEUDO_REWARDS.items()),
)
